"""What is there, what is not and what is broken: each told apart, each with its cure."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest

from lmk.runtime import doctor
from lmk.runtime.doctor import Check
from lmk.runtime.probe import ABSENT, import_error


@pytest.fixture
def put_module(tmp_path, monkeypatch):
    """Write a module to a folder on sys.path."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    return put


@pytest.fixture
def put_command(tmp_path, monkeypatch):
    """Put a shell script first on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def put(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


@pytest.fixture
def only_light(monkeypatch):
    """Leave out torch and what imports it: seconds each."""
    heavy = ("torch", "torchvision", "onnxscript")
    light = tuple(p for p in doctor._PACKAGES if p.module not in heavy)
    monkeypatch.setattr(doctor, "_PACKAGES", light)


def _package(module: str) -> doctor._Package:
    return doctor._Package(module, (module.replace("_", "-"),))


def test_examine_here(only_light):
    checks = {check.name: check for check in doctor.examine()}
    assert list(checks)[:3] == ["python", "lmk-toolkit", "numpy"]
    assert {"onnxruntime", "av", "pillow", "tensorrt", "nvidia gpu", "cpu"} <= set(checks)
    for name in ("python", "lmk-toolkit", "numpy", "pillow", "av", "cpu"):
        assert checks[name].state == "ok" and not checks[name].cure, checks[name]
    assert checks["numpy"].detail == version("numpy")
    assert checks["av"].detail == f"{version('av')}, with libx264"
    assert onnxruntime.__version__ in checks["onnxruntime"].detail
    assert "CPU" in checks["onnxruntime"].detail
    for check in checks.values():
        assert (check.state == "ok") == (check.cure == ""), check
        assert "\n" not in check.detail + check.cure, check


def test_missing_package_names_the_pip_line():
    check = doctor._check_package(_package("lmk_no_such_module"))
    cure = "pip install lmk-no-such-module"
    assert check == Check("lmk-no-such-module", "missing", "not installed", cure)


def test_package_that_fails_to_import_is_broken_with_its_reason(put_module):
    message = "libnvinfer.so.10: cannot open shared object file"
    put_module("lmk_fake_engine", f"raise ImportError('{message}\\nsee the manual')")
    check = doctor._check_package(_package("lmk_fake_engine"))
    assert check.state == "broken"
    assert check.detail == f"of unknown version: ImportError: {message}"
    assert check.cure == "pip install --force-reinstall lmk-fake-engine"


def test_installed_distribution_without_its_module_is_broken():
    check = doctor._check_package(doctor._Package("lmk_no_such_module", ("numpy",)))
    assert check.state == "broken"
    assert check.detail == f"{version('numpy')}: has no module lmk_no_such_module"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", None),
        ("import lmk_not_there_either", "ModuleNotFoundError: No module named"),
        ("def f(:", "SyntaxError"),
        ("import os; os.abort()", "signal 6"),
        ("import os; os._exit(7)", "status 7"),
        ("import warnings; warnings.warn('old'); raise OSError('no driver')", "OSError: no driver"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_import_error(put_module, source, reason):
    put_module("lmk_fake", source)
    error = import_error("lmk_fake")
    if reason is None:
        assert error is None
    else:
        assert reason in error and "\n" not in error


def test_absent_submodule_of_a_package_that_is_there():
    assert import_error("email.lmk_no_such_part") == ABSENT


def test_hanging_import(put_module, monkeypatch):
    put_module("lmk_fake", "import time; time.sleep(60)")
    monkeypatch.setattr("lmk.runtime.probe._SECONDS", 0.5)
    assert import_error("lmk_fake") == "import takes more than 0.5 s"


def test_gpu_is_read_from_nvidia_smi(put_command):
    put_command("nvidia-smi", "echo 'NVIDIA H200, 143771 MiB, 570.86.15'")
    assert doctor._check_gpus() == Check("nvidia gpu", "ok", "NVIDIA H200, 143771 MiB, 570.86.15")


def test_failing_driver_is_broken(put_command):
    put_command("nvidia-smi", "echo 'Driver/library version mismatch'; exit 18")
    check = doctor._check_gpus()
    assert check.state == "broken" and check.detail.startswith("Driver/library version mismatch")


def test_hanging_driver_is_broken(put_command, monkeypatch):
    put_command("nvidia-smi", "exec sleep 60")
    monkeypatch.setattr(doctor, "_SMI_SECONDS", 0.3)
    check = doctor._check_gpus()
    assert check.state == "broken" and "timed out" in check.detail


def test_no_driver_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._check_gpus().state == "missing"


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
    detail = doctor._check_cpu(path).detail
    assert detail.endswith(f", {words}") and " cores, " in detail
    assert ("Fast 9" in detail) == ("Fast 9" in text)


def test_cpu_without_cpuinfo():
    assert doctor._check_cpu(Path("/no/such/file")).detail.endswith(" cores")


def test_best_device_is_one_that_loads(monkeypatch, capfd):
    real = doctor.best_device()
    assert real in ("cpu", "cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert doctor.best_device() == "cpu"
    assert capfd.readouterr() == ("", "")


def test_idle_gpu_is_broken_and_names_the_libraries(monkeypatch):
    monkeypatch.setattr(doctor, "_cuda_error", lambda: "CUDAExecutionProvider: did not load")
    gpu = Check("nvidia gpu", "ok", "NVIDIA H200")
    check = doctor._with_providers(Check("onnxruntime", "ok", "1.31.1"), gpu)
    assert check.state == "broken" and "did not load" in check.detail
    assert check.cure == "pip install 'onnxruntime-gpu[cuda,cudnn]'"


def test_two_onnxruntimes_are_broken(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda distribution: "1.31.1")
    gpu = Check("nvidia gpu", "missing", "no nvidia-smi")
    check = doctor._with_providers(Check("onnxruntime", "ok", "1.31.1"), gpu)
    assert check.state == "broken"
    assert check.cure.startswith("pip uninstall -y onnxruntime-gpu onnxruntime && pip install ")


def test_doctor_imports_nothing_heavy():
    program = (
        "import sys; from lmk.runtime import doctor; doctor.best_device()\n"
        "doctor._PACKAGES = doctor._PACKAGES[:4]; doctor.examine()\n"
        "print({'torch', 'torchvision', 'onnx', 'tensorrt'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
