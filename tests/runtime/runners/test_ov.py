"""ONNX file -> OpenVINO: the numbers of ONNX Runtime, cut to buckets; what cannot run says so."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lmk
from lmk.runtime.errors import UserError
from lmk.runtime.model import wire
from lmk.runtime.runners import ov
from lmk.runtime.runners.ort import OrtRunner
from lmk.runtime.runners.ov import OpenVinoRunner

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def runner(model_path):
    with OpenVinoRunner(model_path, threads=1, buckets=(1, 4)) as opened:
        yield opened


def test_gives_the_numbers_of_onnxruntime_on_any_batch(runner, model_path, crops):
    with OrtRunner(model_path, threads=1) as reference:
        for count in (0, 1, 3, 7):
            landmarks, scores = runner(crops[:count])
            assert landmarks.dtype == scores.dtype == np.float32
            expected = reference(crops[:count])
            np.testing.assert_allclose(landmarks, expected[0], atol=1e-3)
            np.testing.assert_allclose(scores, expected[1], atol=1e-5)


def test_says_what_it_is(runner):
    assert runner.name.startswith("OpenVINO 20") and runner.name.endswith(" CPU, f32")
    assert runner.contract.landmark_names == ("red", "green", "blue")


def test_results_are_the_callers(runner, crops):
    first = runner(crops[:1])
    kept = first[0].copy(), first[1].copy()
    runner(crops[1:2])
    np.testing.assert_array_equal(first[0], kept[0])
    np.testing.assert_array_equal(first[1], kept[1])


def test_several_threads_take_turns(runner, crops):
    expected = [runner(crops[i : i + 2])[0] for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: runner(crops[i : i + 2])[0], range(6)))
    np.testing.assert_array_equal(found, expected)


def test_run_is_silent(model_path, capfd, crops):
    with OpenVinoRunner(model_path) as runner:
        runner(crops)
    assert capfd.readouterr() == ("", "")


def test_load_takes_it_as_a_device(model_path, blob_image):
    with lmk.load(model_path, device="openvino", threads=1) as landmarker:
        found = landmarker(blob_image(64, 64, 20.0, 30.0))
        np.testing.assert_allclose(found.points[0], (20, 30), atol=0.1)
        assert "OpenVINO" in repr(landmarker)


def test_wrong_crops_and_a_closed_runner(runner, crops):
    with pytest.raises(ValueError, match=r"crops: got uint8 \(1, 32, 64, 3\), expected uint8"):
        runner(crops[:1, :32])
    runner.close()
    with pytest.raises(ValueError, match="called after close"):
        runner(crops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads: got 0, expected 1 or more"),
        ({"buckets": ()}, r"buckets: got \[\], expected batch sizes of 1 or more"),
        ({"buckets": (4, 0)}, r"buckets: got \[4, 0\], expected batch sizes of 1 or more"),
    ],
)
def test_bad_options(model_path, options, message):
    with pytest.raises(UserError, match=message):
        OpenVinoRunner(model_path, **options)


def test_fp8_names_the_precisions_that_run(make_model):
    with pytest.raises(UserError, match="got fp8, expected fp32, fp16, bf16, int8 on the openvino"):
        OpenVinoRunner(make_model(precision="fp8"))


def test_bf16_needs_a_processor_that_has_it(make_model):
    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]

    with pytest.raises(UserError, match="got bf16, in which this processor does not compute"):
        ov._check_precision(Core(), "bf16", make_model(precision="bf16"))


def test_metadata_that_contradicts_the_graph(make_model):
    with pytest.raises(UserError, match=r"got tensors .*64,64,3.* expected .*128,128,3.*; export"):
        OpenVinoRunner(make_model(input_size=128))


def test_damaged_graph_is_one_line(model_path, tmp_path):
    path = tmp_path / "damaged.onnx"
    data = model_path.read_bytes().replace(b"ReduceSum", b"ReduceSun")
    path.write_bytes(wire.seal(data[: -len(wire.seal(b""))]))
    with pytest.raises(UserError, match="damaged.onnx: cannot be read as an ONNX model"):
        OpenVinoRunner(path)


def test_int8_far_from_onnxruntime_is_refused(make_model, monkeypatch):
    path = make_model(precision="int8")
    OpenVinoRunner(path).close()
    monkeypatch.setattr(ov, "run_onnx", lambda model, crops: (np.full((4, 3, 2), 9), 0))
    with pytest.raises(UserError, match=r"blob.onnx: got landmarks .* px from those of ONNX Runti"):
        OpenVinoRunner(path)


@pytest.mark.parametrize("flags", [{"avx2"}, {"avx2", "avx_vnni"}])
def test_int8_is_computed_in_float32_where_its_sums_overflow(
    make_model, monkeypatch, caplog, flags
):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(ov, "cpu_flags", lambda: frozenset(flags))
    path, exact = make_model(precision="int8"), "avx_vnni" in flags
    with OpenVinoRunner(path) as runner:
        assert runner.name.endswith(" CPU, int8 and f32" if exact else " CPU, f32")
    said = (
        f"{path}: this processor has no VNNI, so its sums of 8-bit products overflow: the file is"
    )
    assert [record.message.startswith(said) for record in caplog.records] == [True] * (not exact)


def test_missing_package_names_the_extra(model_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"openvino: does not import .*\[openvino\]'"):
        OpenVinoRunner(model_path)
