"""The libraries that a shared library wants, of made-up files and of real ones."""

import re
import shutil
import struct
import subprocess
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.doctor.providers import wanted_libraries

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


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
def test_names_come_back_in_their_order(tmp_path_factory, names):
    names = [f"x{name}" for name in names]  # none of the system's
    path = tmp_path_factory.mktemp("elf") / "lib.so"
    path.write_bytes(_elf(names))
    assert wanted_libraries(path) == tuple(names)


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
