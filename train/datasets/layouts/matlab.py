"""Matlab's .mat file -> arrays, and struct arrays whose fields may be missing or empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular

# Matlab counts from 1: the centre of the top-left pixel, (0, 0) here, is (1, 1) to the tools that
# these annotations were made and are scored with. HRNet and others subtract 1 from them as well.
ONE_BASED = 1.0
_EMPTY = np.zeros((0, 0))  # what Matlab writes for []


def read_mat(path: Path, variable: str) -> NDArray[Any]:
    """The variable of that name, at least 2-D as in Matlab; struct arrays are structured arrays.

    Raises UserError if the file cannot be read or has no such variable.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(
            f"{path}: scipy is missing, expected to read it by; pip install 'lmk-toolkit[train]'"
        ) from error
    try:
        with open_regular(path) as file:
            variables = loadmat(file)
    except Exception as error:  # scipy raises almost anything on corrupt bytes
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as a .mat file of version 4 to 7 ({reason}); get it again"
        ) from error
    if variable not in variables:
        names = ", ".join(name for name in variables if not name.startswith("__"))
        raise UserError(
            f"{path}: got the variables {names or '(none)'}, expected '{variable}'; "
            "is it the file of another data set?"
        )
    return np.asarray(variables[variable])


def rows(value: NDArray[Any]) -> NDArray[Any]:
    """The elements of a struct array; none for [], which has no fields."""
    return value.ravel() if value.dtype.names else value.ravel()[:0]


def field(row: Any, name: str) -> NDArray[Any]:
    """A field of an element of a struct array; empty where it is absent."""
    return row[name] if name in (row.dtype.names or ()) else _EMPTY


def number(row: Any, name: str) -> float:
    """A scalar field, NaN where it is absent, empty or no number; a digit as text is a number."""
    value = field(row, name).ravel()
    try:
        return float(value[0]) if value.size else float("nan")
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def text(row: Any, name: str) -> str:
    """A text field, "" where it is absent or empty."""
    value = field(row, name).ravel()
    return str(value[0]).strip() if value.size else ""
