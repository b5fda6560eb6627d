"""Shared library -> the libraries that it wants, without loading it."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import BinaryIO

# Of the ELF format, 64 bits, little-endian: every Linux that NVIDIA has wheels for.
_MAGIC = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
# The C and C++ run-time: on every Linux, and nothing that a user could install.
_SYSTEM = ("ld-linux", "libc.", "libm.", "libdl.", "librt.", "libpthread.", "libstdc++", "libgcc_s")


def wanted_libraries(path: Path) -> tuple[str, ...]:
    """Names of the libraries that `path` cannot be loaded without, as `libnvinfer.so.10`.

    Those of the system's C run-time are left out. Empty for a file of another format: a DLL, a
    dylib, a truncated library.
    """
    try:
        with path.open("rb") as file:
            names = _needed(file)
    except (OSError, struct.error, ValueError, KeyError):
        return ()
    return tuple(name for name in names if not name.startswith(_SYSTEM))


def _needed(file: BinaryIO) -> list[str]:
    """The DT_NEEDED entries in their order."""
    if file.read(len(_MAGIC)) != _MAGIC:
        return []
    (table,) = _read(file, 32, "<Q")
    size, count = _read(file, 54, "<HH")
    # type, flags, offset in the file, address in memory, physical address, size in the file
    segments = [_read(file, table + index * size, "<IIQQQQ") for index in range(count)]
    dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return []
    pairs = (_read(file, dynamic[2] + at, "<qQ") for at in range(0, dynamic[5] - 15, 16))
    entries = [
        (tag, value) for tag, value in itertools.takewhile(lambda pair: pair[0] != _DT_NULL, pairs)
    ]
    address, length = dict(entries)[_DT_STRTAB], dict(entries)[_DT_STRSZ]
    for kind, _, offset, start, _, in_file in segments:
        if kind == _PT_LOAD and start <= address < start + in_file:
            file.seek(offset + address - start)
            strings = file.read(length)
            return [_string(strings, value) for tag, value in entries if tag == _DT_NEEDED]
    return []


def _read(file: BinaryIO, offset: int, form: str) -> tuple[int, ...]:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _string(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode()
