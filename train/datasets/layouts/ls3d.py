"""Layout `ls3d`: LS3D-W balanced, faces of all poses with 68 points (Bulat & Tzimiropoulos 2017).

`new_dataset/NUMBER.jpg` and, of the same name, `.t7`: a tensor of 68×2 written by Torch7. All are
for testing. The points are taken as they are, as by every published reader; whether they count
from 0 or 1 is not documented.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.listing import Listing, first_of
from lmk.train.datasets.sample import Dataset, Layout, scheme_of

SCHEME = scheme_of([f"p{index}" for index in range(68)])
_FOLDERS = ("new_dataset", "LS3D-W-balanced-20-03-2017/new_dataset")
_MAX_BYTES = 65536  # 68 points take 700 to 1,300
# The first number of every object in a Torch7 file; functions hold bytecode.
_KINDS = {0: "nil", 1: "a number", 2: "a string", 3: "a table", 4: "an object", 5: "a boolean"}
_FUNCTIONS = (6, 7, 8)
_ITEMS = {"Float": "<f4", "Double": "<f8"}


def open_ls3d(root: Path) -> Dataset:
    """Images of `root`/new_dataset with 68 points each, all in split "test".

    Images without points, and points that cannot be read, are left out and told in `problems`.
    """
    folder = first_of(root, *_FOLDERS)
    assert folder, "what makes a folder be recognised"
    listing = Listing(LAYOUT.name, folder, SCHEME)
    images = listing.scan()
    listing.scan(suffixes={".t7"})
    listing.take_each(images, lambda name: f"{name.rpartition('.')[0]}.t7", _points, "test")
    return listing.dataset(root.resolve().name)


def _points(path: Path) -> NDArray[np.float32]:
    found = read_t7(path)
    if found.shape != (68, 2):
        raise ValueError(f"got {found.shape}, expected (68, 2)")
    return found


def read_t7(path: Path) -> NDArray[np.float32]:
    """The one matrix of floats or doubles (rows, columns) in a small Torch7 file.

    Torch7's format can hold tables, classes and functions; nothing of it is built or executed
    here, and every size is checked against the file. Raises UserError that names what the file
    holds instead, or where it breaks off.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes, which is too large for 68 points")
        return _Torch7(path.read_bytes()).matrix()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: got {error}, expected a Torch7 matrix of numbers; get the file again"
        ) from error


class _Torch7:
    """A reader of exactly one tensor; raises ValueError with what it met instead."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def matrix(self) -> NDArray[np.float32]:
        kind = self._class("Tensor")
        (axes,) = self._numbers("i")
        if axes != 2:
            raise ValueError(f"a tensor of {axes} axes")
        rows, columns, row_step, column_step, offset = self._numbers("5q")
        if self._class("Storage") != kind:
            raise ValueError("a tensor with the numbers of another kind")
        (count,) = self._numbers("q")
        item = np.dtype(_ITEMS[kind])
        values = np.frombuffer(self._take(count * item.itemsize), item)
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes after the tensor")
        # A tensor is a view of its storage, and offset counts from 1. No numbers: no last one.
        first, steps = offset - 1, (row_step, column_step)
        last = first + (rows - 1) * row_step + (columns - 1) * column_step
        if min(rows, columns) < 1 or min(first, *steps) < 0 or last >= count:
            raise ValueError(f"a tensor of {rows}×{columns} in a storage of {count} numbers")
        if rows * columns > _MAX_BYTES:  # steps of 0 would make much of little
            raise ValueError(f"a tensor of {rows}×{columns}")
        places = first + np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
        return values[places].astype(np.float32)

    def _class(self, ending: str) -> str:
        """The head of an object of class torch.Float… or torch.Double…; gives which of the two."""
        (kind,) = self._numbers("i")
        if kind != 4:
            name = "a function" if kind in _FUNCTIONS else _KINDS.get(kind, f"type {kind}")
            raise ValueError(f"{name} instead of a {ending.lower()}")
        self._numbers("i")  # its number, by which later objects would refer to it
        version, name = self._string(), self._string()
        if version != "V 1":
            raise ValueError(f"version {version!r}")
        for kind_name in _ITEMS:
            if name == f"torch.{kind_name}{ending}":
                return kind_name
        raise ValueError(f"an object of class {name!r}")

    def _string(self) -> str:
        (length,) = self._numbers("i")
        if length > 64:
            raise ValueError(f"a name of {length:,} letters")
        return self._take(length).decode("ascii", "backslashreplace")

    def _numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise ValueError(f"{len(self._data):,} bytes, where {self._at + count:,} are promised")
        self._at += count
        return self._data[self._at - count : self._at]


def _is_ls3d(root: Path) -> bool:
    folder = first_of(root, *_FOLDERS)
    return folder is not None and next(folder.glob("*.t7"), None) is not None


LAYOUT = Layout(
    "ls3d",
    "new_dataset/ with NUMBER.jpg and NUMBER.t7",
    _is_ls3d,
    open_ls3d,
    SCHEME.names,
)
