"""GPUs as the driver lists them, and the choice of what runs a model on them."""

import pytest

from lmk.runtime.doctor import gpus
from lmk.runtime.doctor.gpus import GpuError, best_runner, read_gpus
from lmk.runtime.runners import Gpu

H200 = Gpu("NVIDIA H200", (9, 0), 143771, "570.86.15")
ADA = Gpu("NVIDIA L4", (8, 9))
PASCAL = Gpu("NVIDIA P4", (6, 1))
RTX = {(7, 5), (8, 6), (8, 9), (12, 0)}
CURES = {"tensorrt": "pip install trt", "onnxruntime cuda": "pip install cuda"}


@pytest.fixture(autouse=True)
def all_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def put_smi(tmp_path, monkeypatch):
    """Put an nvidia-smi of a shell script first on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def put(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


def test_gpus_are_read_from_nvidia_smi(put_smi):
    put_smi("echo 'NVIDIA H200, 9.0, 143771, 570.86.15'; echo 'NVIDIA GB10, 12.1, [N/A], 580.1'")
    assert read_gpus() == [H200, Gpu("NVIDIA GB10", (12, 1), None, "580.1")]
    assert str(H200) == ("NVIDIA H200, compute capability 9.0, 143771 MiB, driver 570.86.15")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Driver/library version mismatch'; exit 18", "Driver/library version mismatch"),
        ("exit 0", "status 0"),
        ("echo 'NVIDIA H200'", "got 'NVIDIA H200', expected name, compute_cap"),
        ("exec sleep 60", "timed out"),
    ],
)
def test_failing_driver(put_smi, monkeypatch, script, words):
    monkeypatch.setattr(gpus, "_SMI_SECONDS", 0.5)
    put_smi(script)
    with pytest.raises(GpuError, match=words) as caught:
        read_gpus()
    assert "driver" in caught.value.cure and not caught.value.absent


def test_no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpuError, match="no nvidia-smi") as caught:
        read_gpus()
    assert caught.value.absent


def test_hidden_gpus(put_smi, monkeypatch):
    put_smi("echo 'NVIDIA H200, 9.0, 143771, 570.86.15'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(GpuError, match="hidden by CUDA_VISIBLE_DEVICES='-1'") as caught:
        read_gpus()
    assert caught.value.cure == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("gpus", "loads", "name", "why"),
    [
        ([], {"tensorrt", "cuda-core"}, "cpu", "no NVIDIA GPU"),
        ([H200], {"tensorrt", "cuda-core"}, "trt", "tensorrt and cuda-core load"),
        ([H200], {"tensorrt", "pycuda"}, "trt", "tensorrt and pycuda load"),
        ([ADA, H200], {"tensorrt-rtx", "cuda-core", "onnxruntime cuda"}, "cuda", "H200 of compute"),
        ([ADA], {"tensorrt-rtx", "cuda-core"}, "rtx", "tensorrt-rtx and cuda-core load"),
        ([ADA], {"tensorrt", "onnxruntime cuda"}, "cuda", "TensorRT is faster: needs cuda-core"),
        ([H200], {"cuda-core", "onnxruntime cuda"}, "cuda", "is faster: pip install trt"),
        ([H200], {"cuda-core"}, "cpu", "stays idle: pip install cuda"),
        ([PASCAL], {"tensorrt", "cuda-core", "onnxruntime cuda"}, "cuda", "needs 7.5 or more"),
    ],
)
def test_best_runner(gpus, loads, name, why):
    best = best_runner(gpus, loads, CURES, RTX)
    assert best.name == name and why in best.why
    assert "`lmk " in best.how
