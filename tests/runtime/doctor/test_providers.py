"""ONNX Runtime's providers are really tried, and name the libraries they want."""

import sys

import onnxruntime
import pytest

from lmk.runtime.doctor import providers
from lmk.runtime.doctor.providers import Provider, provider_cure, try_provider, wanted_by_tensorrt


def test_provider_that_loads():
    assert try_provider("CPUExecutionProvider") == Provider((), (), None)


def test_provider_that_was_not_built():
    provider = try_provider("NoSuchExecutionProvider")
    assert provider.wants == () and "was built without" in provider.error


@pytest.mark.skipif(
    "TensorrtExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="an onnxruntime without the TensorRT provider",
)
def test_tensorrt_provider_names_its_libnvinfer():
    provider = try_provider("TensorrtExecutionProvider")
    assert any(name.startswith("libnvinfer.so.") for name in provider.wants)
    assert set(provider.missing) <= set(provider.wants)
    assert provider.error is None or "\n" not in provider.error


def test_provider_that_ends_python(monkeypatch):
    monkeypatch.setattr(providers, "_PROGRAM", "import os; os.abort()")
    assert "ends Python with status -6" in try_provider("CPUExecutionProvider").error


@pytest.mark.parametrize(
    ("missing", "cure"),
    [
        (("libcudnn.so.9",), "[cuda]'"),
        (("libnvinfer.so.10", "libnvonnxparser.so.10"), "pip install 'tensorrt-cu13==10.*'"),
        (("libnvinfer.so.11", "libcuda.so.1"), "reinstall the driver: libcuda.so.1"),
    ],
)
def test_cure(missing, cure):
    assert cure in provider_cure(Provider((*missing, "libcudart.so.13"), missing, "did not load"))


def test_tensorrt_wants_what_its_own_package_brings(tmp_path, monkeypatch):
    for name in ("fake_bindings", "fake_libs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    wants = ("libnvinfer.so.10", "libnvonnxparser.so.10")
    (tmp_path / "fake_bindings/fake.so").touch()
    monkeypatch.setattr(providers, "wanted_libraries", lambda path: wants)
    assert wanted_by_tensorrt("fake") == "wants libnvinfer.so.10"
    (tmp_path / "fake_libs/libnvinfer.so.10").touch()
    assert wanted_by_tensorrt("fake") == "wants libnvinfer.so.10 of fake_libs"
    assert wanted_by_tensorrt("lmk_no_such") == ""
    assert not {"fake_bindings", "fake_libs"} & set(sys.modules)
