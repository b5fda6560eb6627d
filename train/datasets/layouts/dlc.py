"""Layout `dlc`: DeepLabCut's CollectedData, as its projects have it.

CollectedData_SCORER.csv or .h5 in the folder, in `labeled-data/FILM/`, or in folders of films; the
CSV where both are there. Rows are named by the path of their picture, in one column or three; the
header may have a line of individuals, each of which is a sample then. Where a picture is gone, the
frame of its number is read from the film of its folder's name, such as in `videos/`.
"""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular
from lmk.train.datasets.layouts.listing import edges
from lmk.train.datasets.layouts.marked import Marked, dataset_of
from lmk.train.datasets.sample import Dataset, Layout

_ARRAYS = ("_reconstruct", "ndarray", "dtype", "scalar")  # of numpy, to make an array anew
_LEVELS = ("scorer", "individuals", "bodyparts", "coords")
_Table = tuple[dict[str, list[str]], list[tuple[str, list[Any]]]]  # levels of columns; rows by name


def open_dlc(root: Path) -> Dataset:
    """Read every table of a project or folder, or the one that is named.

    Raises UserError for a table of another form, and as `dataset_of`.
    """
    files = _files(root)
    tables = {path: _read(path) for path in files}
    names = list(dict.fromkeys(n for levels, _ in tables.values() for n in levels["bodyparts"]))
    rows = []
    for path, (levels, lines) in tables.items():
        individuals = levels.get("individuals") or [""] * len(levels["bodyparts"])
        columns = list(zip(individuals, levels["bodyparts"], levels["coords"], strict=True))
        for name, cells in lines:
            for individual in dict.fromkeys(individuals):
                points = np.full((len(names), 2), np.nan, np.float32)
                for (whose, part, axis), cell in zip(columns, cells, strict=True):
                    if whose == individual and axis in ("x", "y"):
                        points[names.index(part), "xy".index(axis)] = _number(path, name, cell)
                points[np.isnan(points).any(axis=1)] = np.nan
                rows.append(Marked(name, points))
    return dataset_of("dlc", root if root.is_dir() else root.parent, files, names, rows)


def landmark_names(root: Path) -> tuple[str, ...]:
    """Names of the body parts."""
    return tuple(dict.fromkeys(n for path in _files(root) for n in _read(path)[0]["bodyparts"]))


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if _is_table(root) else []
    found = [
        p for depth in ("", "*/", "labeled-data/*/") for p in root.glob(f"{depth}CollectedData*")
    ]
    tables = [path for path in found if _is_table(path)]
    csvs = {path.with_suffix("") for path in tables if path.suffix == ".csv"}
    return sorted({p for p in tables if p.suffix == ".csv" or p.with_suffix("") not in csvs})


def _is_table(path: Path) -> bool:
    if path.suffix == ".csv":
        return edges(path).startswith("scorer,")
    return path.suffix == ".h5" and path.name.startswith("CollectedData") and path.is_file()


def _read(path: Path) -> _Table:
    return _read_h5(path) if path.suffix == ".h5" else _read_csv(path)


def _read_csv(path: Path) -> _Table:
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); get the file again") from error
    head = [line for line in lines if line[0] in _LEVELS]
    if [line[0] for line in head[-2:]] != ["bodyparts", "coords"]:
        raise UserError(
            f"{path}: got no lines of bodyparts and coords, expected DeepLabCut's table"
        )
    index = next((n for n, cell in enumerate(head[-1][1:], 1) if cell), 1)
    for line in lines:
        if len(line) != len(head[-1]):
            raise UserError(
                f"{path}: got {len(line)} cells in the row of '{line[0]}', expected "
                f"{len(head[-1])}, as its header; get the file again"
            )
    levels = {line[0]: line[index:] for line in head}
    return levels, [("/".join(line[:index]), line[index:]) for line in lines[len(head) :]]


def _read_h5(path: Path) -> _Table:
    try:
        import pandas
        import tables

        # Both unpickle what a file holds beside its numbers, which may be any program.
        plain = SimpleNamespace(loads=_plain, UnpicklingError=pickle.UnpicklingError)
        with (
            mock.patch.object(tables.attributeset, "pickle", plain),
            mock.patch.object(tables.atom, "pickle", plain),
        ):
            frame = pandas.read_hdf(path)
        levels = {
            str(name): [str(each) for each in frame.columns.get_level_values(name)]
            for name in frame.columns.names
        }
        keys = [key if isinstance(key, tuple) else (key,) for key in frame.index]
        rows = [
            ("/".join(map(str, key)), list(values))
            for key, values in zip(keys, frame.to_numpy(), strict=True)
        ]
    except ImportError as error:
        raise UserError(
            f"{path}: needs pandas and tables; pip install 'lmk-toolkit[dlc]'"
        ) from error
    except Exception as error:  # PyTables and pandas raise almost anything on other bytes
        raise UserError(f"{path}: cannot be read as a table of DeepLabCut ({error})") from error
    if not {"bodyparts", "coords"} <= levels.keys():
        raise UserError(
            f"{path}: got columns of {', '.join(levels)}, expected bodyparts and coords"
        )
    return levels, rows


def _plain(data: bytes, **options: Any) -> Any:
    """What a pickle of texts, numbers, their lists and arrays holds; an error for any other."""
    return _Plain(io.BytesIO(data), **options).load()


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """See pickle.Unpickler."""
        if module.partition(".")[0] == "numpy" and name in _ARRAYS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"got {module}.{name}, expected texts and numbers alone")


def _number(path: Path, row: str, cell: Any) -> float:
    try:
        value = float(cell) if cell != "" else np.nan
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: got '{cell}' in the row of '{row}', expected numbers") from None
    return value if np.isfinite(value) else np.nan


LAYOUT = Layout(
    "dlc",
    "CollectedData_*.csv or .h5 of DeepLabCut, in it or in labeled-data/*/",
    lambda root: bool(_files(root)),
    open_dlc,
    landmark_names,
)
