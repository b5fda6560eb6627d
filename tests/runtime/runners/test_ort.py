"""ONNX file -> runner: right numbers, one provider, one line for whatever is wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from lmk.runtime.errors import UserError
from lmk.runtime.model import read_model, wire
from lmk.runtime.runners.ort import OrtRunner


def _centroids(crops):
    weights = crops.astype(np.float64)
    ramp = np.arange(64.0)
    mass = weights.sum((1, 2)) + 1e-6
    x = (weights * ramp[None, None, :, None]).sum((1, 2)) / mass
    y = (weights * ramp[None, :, None, None]).sum((1, 2)) / mass
    return np.stack([x, y], -1), weights.mean((1, 2)) / 255


def test_runs_the_graph_on_any_batch(model_path):
    crops = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    with OrtRunner(model_path, threads=1) as runner:
        for batch in (crops[:0], crops[:1], crops):
            landmarks, scores = runner(batch)
            assert landmarks.dtype == scores.dtype == np.float32
            assert landmarks.shape == (len(batch), 3, 2) and scores.shape == (len(batch), 3)
            expected_landmarks, expected_scores = _centroids(batch)
            np.testing.assert_allclose(landmarks, expected_landmarks, atol=1e-3)
            np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_reads_the_contract(model_path):
    with OrtRunner(model_path) as runner:
        assert runner.name == "onnxruntime CPUExecutionProvider"
        assert runner.contract.landmark_names == ("red", "green", "blue")
        assert runner.contract.input_size == 64


def test_absent_provider_is_an_error_with_a_cure_and_no_noise(model_path, capfd):
    try:
        OrtRunner(model_path, device="cuda").close()
    except UserError as error:
        message = str(error)
    else:
        pytest.skip("this machine has a working CUDA provider")
    assert "CUDAExecutionProvider" in message
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in message and "lmk doctor" in message
    assert capfd.readouterr() == ("", "")


def test_crops_of_others(model_path):
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    shared = SimpleNamespace(__dlpack__=crops.__dlpack__, __dlpack_device__=lambda: (1, 0))
    on_device = SimpleNamespace(__dlpack_device__=lambda: (2, 0))
    with OrtRunner(model_path, threads=1) as runner:
        np.testing.assert_array_equal(runner(shared)[0], runner(crops)[0])
        with pytest.raises(ValueError, match="crops: got an array in device memory, expected one"):
            runner(on_device)


def test_cpu_run_is_silent(model_path, capfd):
    with OrtRunner(model_path) as runner:
        runner(np.zeros((2, 64, 64, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device: got 'tpu', expected one of cpu, cuda"),
        ({"threads": 0}, "threads: got 0, expected 1 or more"),
        ({"buckets": [1]}, "buckets: got device 'cpu', expected cuda; leave buckets out"),
        ({"buckets": [8, 0], "device": "cuda"}, "buckets: got 0, expected batch sizes of 1 or mo"),
    ],
)
def test_bad_options(model_path, options, message):
    with pytest.raises(UserError, match=message):
        OrtRunner(model_path, **options)


def test_files_that_are_no_model_of_ours(model_path, make_model, tmp_path):
    whole, path = model_path.read_bytes(), tmp_path / "cut.onnx"
    for data in (b"", *(whole[: len(whole) // n] for n in (100, 2)), whole[:-9], bytes(range(256))):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"cut\.onnx: .*export"):
            OrtRunner(path)
    for path, told in (
        (tmp_path / "no.onnx", "no such file"),
        (tmp_path, "is a folder, expected a model"),
        (make_model(metadata={"author": "someone"}), r"blob\.onnx: not made by `lmk export`"),
        (make_model(metadata={"lmk.format": "1"}), "'lmk.category' is missing, expected a model"),
    ):
        with pytest.raises(UserError, match=told):
            OrtRunner(path)


def test_metadata_that_contradicts_the_graph(make_model):
    with pytest.raises(UserError, match="got tensors .* expected .*128, 128, 3"):
        OrtRunner(make_model(input_size=128))


def test_graph_with_other_tensors(make_model, model_path, tmp_path):
    metadata = read_model(model_path)[1].to_metadata()
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata)
    path = tmp_path / "other.onnx"
    path.write_bytes(wire.seal(model.SerializeToString()))
    with pytest.raises(UserError, match="other.onnx: got tensors"):
        OrtRunner(path)
