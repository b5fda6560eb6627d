"""What is there, what is not and what is broken: each told apart, each with its cure."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest

from lmk.runtime.doctor import diagnosis
from lmk.runtime.doctor.diagnosis import Check
from lmk.runtime.doctor.imports import ABSENT, Trial
from lmk.runtime.doctor.providers import Provider
from lmk.runtime.runners import Gpu

ROOT = Path(__file__).parents[3]
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.fixture
def only_light(monkeypatch):
    """Leave out torch and what imports it, ray and what writes tables: seconds each."""
    heavy = ("torch", "torchvision", "onnxscript", "ray", "pandas", "tables", "sleap_io")
    light = tuple(p for p in diagnosis._PACKAGES if p.module not in heavy)
    monkeypatch.setattr(diagnosis, "_PACKAGES", light)


@pytest.fixture
def no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def _package(module: str, **facts) -> diagnosis.Package:
    return diagnosis.Package(module, (module.replace("_", "-"),), **facts)


def _check(package: diagnosis.Package, trial: Trial, has_gpu: bool = False) -> Check:
    return diagnosis._check_package(package, trial, has_gpu)


def test_examine_here(only_light):
    found = diagnosis.examine()
    checks = {check.name: check for check in found.checks}
    assert list(checks)[:3] == ["python", "lmk-toolkit", "numpy"]
    assert {"onnxruntime", "av", "pillow", "tensorrt", "nvidia gpu", "cpu"} <= set(checks)
    for name in ("python", "lmk-toolkit", "numpy", "pillow", "av", "cpu", "auto"):
        assert checks[name].state == "ok" and not checks[name].cure, checks[name]
    assert checks["numpy"].detail == version("numpy")
    assert checks["av"].detail == f"{version('av')}, with libx264"
    assert onnxruntime.__version__ in checks["onnxruntime"].detail
    built = {
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    }
    assert {f"onnxruntime {name.lower()}" for name in built - {"CPU"}} <= set(checks)
    assert found.best_device in ("cpu", "cuda") and found.best_runner.why
    for check in checks.values():
        assert (check.state == "ok") == (check.cure == ""), check
        assert "\n" not in check.detail + check.cure, check


def test_every_extra_is_one_of_ours():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {package.extra for package in diagnosis._PACKAGES if package.extra}
    assert names <= set(extras["optional-dependencies"])


NO_LIBRARY = "ImportError: libnvinfer.so.10: cannot open shared object file"


@pytest.mark.parametrize(
    ("package", "trial", "state", "detail", "cure"),
    [
        (_package("lmk_x"), Trial(ABSENT), "missing", "not installed", "pip install lmk-x"),
        (
            *(_package("lmk_x", extra="trt"), Trial(ABSENT), "missing", "not installed"),
            f"pip install -e '{ROOT}[trt]'",
        ),
        (
            *(_package("lmk_x"), Trial(NO_LIBRARY), "broken", f"of unknown version: {NO_LIBRARY}"),
            "pip install --force-reinstall lmk-x",
        ),
        (
            *(_package("lmk_x"), Trial("ImportError: libcuda.so.1: cannot open"), "broken"),
            *("libcuda.so.1", "install its driver"),
        ),
        (
            *(diagnosis.Package("lmk_x", ("numpy",)), Trial(ABSENT), "broken"),
            *(f"{version('numpy')}: has no module lmk_x", ""),
        ),
        (diagnosis._AV, Trial(None, False), "broken", version("av"), "--only-binary av"),
    ],
)
def test_what_is_missing_or_broken_names_the_pip_line(package, trial, state, detail, cure):
    check = _check(package, trial)
    assert check.state == state and detail in check.detail and cure in check.cure


def test_tensorrt_rtx_tells_what_it_builds_for():
    check = _check(diagnosis.TENSORRT_RTX, Trial(None, ["SM75", "SM120"]))
    assert "builds for compute capability 7.5, 12.0" in check.detail


@pytest.mark.parametrize(
    ("fact", "has_gpu", "state", "words"),
    [
        (1, True, "ok", "sees 1 GPU"),
        ([["A", 8, 0], ["B", 9, 0]], True, "ok", "sees 2 GPUs"),
        (False, False, "ok", "sees no GPU"),
        (None, True, "broken", "sees none of the GPUs (driver too old)"),
    ],
)
def test_package_that_sees_no_gpu_is_broken_where_there_is_one(fact, has_gpu, state, words):
    package = diagnosis.Package("numpy", ("numpy",), gpus=True)
    check = _check(package, Trial(None, fact, "driver too old"), has_gpu)
    assert check.state == state and check.detail.endswith(words)
    assert check.cure == ("" if state == "ok" else "pip install --force-reinstall numpy")


def test_two_onnxruntimes_are_broken(monkeypatch):
    monkeypatch.setattr(diagnosis, "_version", lambda distribution: "1.31.1")
    check = _check(diagnosis.ONNXRUNTIME, Trial(None, ["CPUExecutionProvider"]))
    assert check.state == "broken"
    assert check.cure.startswith("pip uninstall -y onnxruntime-gpu onnxruntime && pip install ")


def test_provider_that_loads():
    wants = ("libcudart.so.13",)
    check = diagnosis._check_provider(CUDA, Provider(wants, (), None), has_gpu=True)
    assert check == Check("onnxruntime cuda", "ok", "wants libcudart.so.13")


def test_idle_gpu_is_broken_and_names_the_libraries():
    provider = Provider(("libcudart.so.13", "libcudnn.so.9"), ("libcudnn.so.9",), "did not load")
    check = diagnosis._check_provider(CUDA, provider, has_gpu=True)
    assert check.state == "broken" and check.detail.endswith("; not found: libcudnn.so.9")
    assert check.cure == f"pip install -e '{ROOT}[cuda]'"
    assert diagnosis._check_provider(CUDA, provider, has_gpu=False).state == "missing"


def test_tensorrt_provider_wants_its_major_version(monkeypatch):
    wants = ("libnvinfer.so.10", "libcudart.so.13")
    provider = Provider(wants, wants[:1], "did not load")
    monkeypatch.setattr(diagnosis, "_version", lambda distribution: None)
    check = diagnosis._check_provider(TENSORRT, provider, has_gpu=True)
    assert check.state == "missing" and check.cure == "pip install 'tensorrt-cu13==10.*'"
    monkeypatch.setattr(diagnosis, "_version", lambda distribution: "11.0.0")
    check = diagnosis._check_provider(TENSORRT, provider, has_gpu=True)
    assert "an environment of its own pip install 'tensorrt-cu13==10.*'" in check.cure


def test_provider_of_another_maker_is_broken_without_an_nvidia_gpu_too():
    provider = Provider((), (), "OpenVINOExecutionProvider: did not load")
    check = diagnosis._check_provider("OpenVINOExecutionProvider", provider, has_gpu=False)
    assert check.state == "broken" and "did not load" in check.detail


def test_no_driver_is_missing(no_driver):
    check, gpus = diagnosis._check_gpus(Trial(ABSENT))
    assert check.state == "missing" and gpus == ()


def test_cuda_core_tells_the_gpus_where_there_is_no_nvidia_smi(no_driver):
    check, gpus = diagnosis._check_gpus(Trial(None, [["NVIDIA H200", 9, 0]]))
    assert check == Check("nvidia gpu", "ok", "NVIDIA H200, compute capability 9.0")
    assert gpus == (Gpu("NVIDIA H200", (9, 0)),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model name\t: Fast 9\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", "AVX-512 bf16"),
        ("processor : 0\nFeatures\t: fp asimd bf16\n", "bf16"),
    ],
)
def test_cpu_instructions(tmp_path, text, words):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    detail = diagnosis._check_cpu(path).detail
    assert detail.endswith(f", {words}") and " cores, " in detail
    assert ("Fast 9" in detail) == ("Fast 9" in text)


def test_cpu_without_cpuinfo():
    assert diagnosis._check_cpu(Path("/no/such/file")).detail.endswith(" cores")


def test_openvino_is_named_for_what_the_processor_computes_in(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    best, gpu = (diagnosis.BestRunner(name, "so") for name in ("cpu", "trt"))
    both, plain = frozenset({"avx2", "avx_vnni", "amx_bf16"}), frozenset({"avx2"})
    gain = "so; openvino is about twice as fast in int8 or bf16 on this processor"
    assert diagnosis._with_openvino(best, True, both).why == gain
    missing = diagnosis._with_openvino(best, False, both).why
    assert missing.startswith(f"{gain}: pip install") and "openvino" in missing.split("pip", 1)[1]
    assert diagnosis._with_openvino(best, False, plain) == best
    assert diagnosis._with_openvino(gpu, True, both) == gpu


@pytest.mark.parametrize(
    ("trial", "check"),
    [
        (Trial(None, "cpu for cats (so)"), Check("auto", "ok", "cpu for cats (so)")),
        (Trial(None, None, "x: got y; do z"), Check("auto", "broken", "x: got y", "do z")),
        (Trial("SIGILL"), Check("auto", "broken", "SIGILL", "name another --device")),
    ],
)
def test_what_auto_takes_is_told_or_why_it_takes_nothing(monkeypatch, trial, check):
    monkeypatch.setattr(diagnosis, "try_import", lambda module, fact: trial)
    assert diagnosis._check_auto() == check


def test_doctor_imports_nothing_heavy():
    program = (
        "import sys; from lmk.runtime.doctor import diagnosis as doctor\n"
        "needed = (doctor.ONNXRUNTIME, doctor.CUDA_CORE, doctor.TENSORRT_RTX)\n"
        "doctor._PACKAGES = needed; doctor.examine()\n"
        "print({'torch', 'torchvision', 'onnx', 'onnxruntime', 'tensorrt'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
