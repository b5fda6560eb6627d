"""ONNX Runtime's providers are really tried, and name the libraries they want."""

import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.doctor import providers
from lmk.runtime.doctor.providers import (
    Provider,
    provider_cure,
    try_provider,
    wanted_by_tensorrt,
    wanted_libraries,
)


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


_HEADER, _SEGMENT = 64, 56


def _elf(names, address=0x1000):
    """The smallest file that a loader would read `names` from: two segments, no code."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    starts = [1 + sum(len(n.encode()) + 1 for n in names[:index]) for index in range(len(names))]
    entries = [(1, start) for start in starts] + [(5, address), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    at = _HEADER + 2 * _SEGMENT
    load = (1, 4, at, address, address, len(strings), len(strings), 1)
    table = (2, 4, at + len(strings), 0x9000, 0x9000, len(dynamic), len(dynamic), 8)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, _SEGMENT, 2, 64, 0, 0)
    return (
        header
        + struct.pack("<IIQQQQQQ", *load)
        + struct.pack("<IIQQQQQQ", *table)
        + (strings + dynamic)
    )


def test_system_libraries_are_left_out(tmp_path):
    path = tmp_path / "lib.so"
    path.write_bytes(_elf(["libnvinfer.so.10", "libc.so.6", "libstdc++.so.6", "libcublas.so.13"]))
    assert wanted_libraries(path) == ("libnvinfer.so.10", "libcublas.so.13")


@given(st.data())
def test_damaged_file_wants_nothing_or_less(tmp_path_factory, data):
    whole = bytearray(_elf(["libnvinfer.so.10"]))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("elf") / "lib.so"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert len(wanted_libraries(path)) <= 3


@pytest.mark.parametrize("content", [b"", b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe" + bytes(99)])
def test_other_files_want_nothing(tmp_path, content):
    path = tmp_path / "lib.dll"
    path.write_bytes(content)
    assert wanted_libraries(path) == ()
    assert wanted_libraries(tmp_path / "no-such-file") == ()


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf (binutils)")
@pytest.mark.parametrize("pattern", ["numpy/**/_multiarray_umath*.so", "onnxruntime/capi/*.so*"])
def test_real_libraries_as_readelf_says(pattern):
    files = list(Path(sysconfig.get_path("platlib")).glob(pattern))
    assert files
    for path in files:
        command = ["readelf", "--dynamic", "--wide", str(path)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        names = re.findall(r"\(NEEDED\).*\[(.*)\]", printed)
        wanted = wanted_libraries(path)
        assert [name for name in names if name in wanted] == list(wanted)
        assert len(names) - len(wanted) <= 9 and not set(wanted) - set(names)
