"""Names of runners, what they open, and that none that fell back is measured."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmk.benchmarks.runners import names
from lmk.benchmarks.runners.names import (
    RunnerSpec,
    check_device,
    defaults,
    device_of,
    is_pytorch,
    open_runner,
    parse_name,
    refuse_fallback,
)
from lmk.runtime.errors import UserError
from lmk.runtime.model.probe import probe_crops


def spec(kind, file="model", precision="fp32", device="cpu"):
    """As it comes out of its journey to another process."""
    core = {} if kind.startswith("o") else {"core": str(Path(file).with_name("core.safetensors"))}
    made = RunnerSpec(kind, kind, precision, device, 1, (1, 2), str(file), **core)
    assert RunnerSpec.from_json(made.to_json()) == made
    return made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eager", ("eager", None)),
        ("eager-tf32", ("eager", "tf32")),
        ("ort-cpu", ("ort-cpu", None)),
        ("ort-cuda-fp16", ("ort-cuda", "fp16")),
        ("trt-int8", ("trt", "int8")),
        ("auto", ("auto", None)),
        ("student-ort-cpu-fp16", ("ort-cpu", "fp16")),
    ],
)
def test_name_is_a_kind_and_a_precision(name, expected):
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("eager-int8", "expected eager in fp32, tf32, fp16, bf16: it never runs in int8"),
        ("trt-tf32", "it never runs in tf32"),
        ("openvino-fp8", "expected openvino in fp32, fp16, bf16, int8: it never runs in fp8"),
        ("ort-cpu-bf16", "it never runs in bf16"),
        ("ort_cpu", "did you mean ort-cpu?"),
        *(
            (name, "expected auto or any of eager, compile")
            for name in ("", "ort", "Eager", "trt-fp12")
        ),
    ],
)
def test_what_never_runs_is_unknown_or_misspelt_is_told(name, words):
    with pytest.raises(UserError, match=f"^against: got '{name}', ") as error:
        parse_name(name)
    assert words in str(error.value)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("real", [True, False])
def test_defaults_are_names_of_what_runs_on_the_device(device, real):
    names = defaults(device, real, student=True)
    assert set(names) - set(defaults(device, real)) == {
        name for name in names if name.startswith("student-")
    }
    assert [parse_name(name) for name in names] and names[0] == "eager"
    check_device(names, device)


def test_int8_is_measured_by_default_where_there_are_images_and_openvino(monkeypatch):
    assert "openvino-int8" not in defaults("cpu", False)
    for found in (None, object()):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        assert ("openvino-int8" in defaults("cpu", True)) == (found is not None)


def test_tf32_is_no_runner_of_a_cpu():
    check_device(("eager-tf32",), "cuda")
    with pytest.raises(UserError, match="^compile-tf32: got the CPU, expected CUDA"):
        check_device(("eager", "compile-tf32"), "cpu")


def test_pytorch_runs_where_the_benchmark_does_and_the_others_where_they_say():
    assert [device_of(kind, "cuda") for kind in ("eager", "ort-cpu", "trt")] == [
        "cuda",
        "cpu",
        "cuda",
    ]
    assert [is_pytorch(kind) for kind in ("compile", "openvino")] == [True, False]


@pytest.mark.parametrize(
    ("asked", "device", "name"),
    [
        ("ort-cuda", "cuda", "onnxruntime CPUExecutionProvider"),
        ("trt", "cuda", "TensorRT for RTX 1.2 on a GPU"),
        ("eager", "cuda", "PyTorch eager 2.12 cpu fp32"),
        ("compile", "cpu", "PyTorch eager 2.12 cpu fp32"),
        ("openvino", "cpu", "OpenVINO 2026.1 GPU"),
        ("openvino-int8", "cpu", "OpenVINO 2026.1 CPU, f32"),
    ],
)
def test_runner_that_fell_back_is_refused_and_closed(asked, device, name, monkeypatch):
    closed = []
    runner = SimpleNamespace(name=name, close=lambda: closed.append(name))
    monkeypatch.setattr(names, "_open", lambda spec: runner)
    with pytest.raises(UserError, match=f"^{asked}: got a runner on '.*; it fell back"):
        kind, precision = parse_name(asked)
        open_runner(RunnerSpec(asked, kind, precision or "fp32", device, 1, (1, 2), "model"))
    assert closed == [name]


@pytest.mark.parametrize(
    ("kind", "device", "name"),
    [
        ("ort-cuda", "cuda", "onnxruntime CUDAExecutionProvider, CUDA graphs for batches 1"),
        ("trt", "cuda", "TensorRT 10.13.0 on a GPU"),
        ("rtx", "cuda", "TensorRT for RTX 1.7.1 on a GPU"),
        ("eager", "cuda", "PyTorch eager 2.12 cuda fp32"),
    ],
)
def test_runner_that_is_what_it_is_called_is_not_refused(kind, device, name):
    refuse_fallback(spec(kind, device=device), SimpleNamespace(name=name))


def test_device_that_is_not_there_is_an_error(exported_detector):
    with pytest.raises(UserError, match="CUDAExecutionProvider"):
        open_runner(spec("ort-cuda", exported_detector, device="cuda"))


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-3), ("tf32", 1e-3), ("bf16", 2.0)])
def test_eager_finds_what_onnx_runtime_does(detector, exported_detector, precision, atol):
    crops = probe_crops(64, 3)
    with (
        open_runner(spec("eager", detector, precision)) as eager,
        open_runner(spec("ort-cpu", exported_detector)) as runner,
    ):
        found, expected = eager(crops), runner(crops)
        assert eager.contract.landmark_names == runner.contract.landmark_names
        with pytest.raises(ValueError, match="crops: got float64"):
            eager(np.zeros((1, 64, 64, 3)))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32 and one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=atol)


def test_compiled_runner_compiles_each_batch_once(detector, monkeypatch):
    import torch

    compiled = []

    def backend(module, examples):
        compiled.append(len(examples))
        return module

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **o: real(m, **{**o, "backend": backend}))
    crops = probe_crops(64, 2)
    with (
        open_runner(spec("compile", detector)) as runner,
        open_runner(spec("eager", detector)) as eager,
    ):
        for batch in (1, 2, 1, 2):
            np.testing.assert_allclose(runner(crops[:batch])[0], eager(crops[:batch])[0], atol=1e-3)
    assert len(compiled) == 2


def test_what_cannot_be_compiled_is_an_error_in_one_line(detector, monkeypatch):
    import torch

    def backend(module, examples):
        raise RuntimeError("no compiler\nin many lines")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **o: real(m, **{**o, "backend": backend}))
    told = pytest.raises(UserError, match="cannot compile .*no compiler")
    with open_runner(spec("compile", detector)) as runner, told:
        runner(probe_crops(64, 1))
