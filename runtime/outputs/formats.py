"""Formats of results -> the names of their files, and the packages that write them."""

from __future__ import annotations

from pathlib import Path

FORMATS = ("csv", "overlay", "jsonl", "coco", "parquet", "dlc", "slp")
DATA = {  # the files of every other format
    "csv": ("landmarks.csv",),
    "jsonl": ("landmarks.jsonl",),
    "coco": ("landmarks.coco.json",),
    "parquet": ("landmarks.parquet",),
    "dlc": ("landmarks.dlc.csv", "landmarks.dlc.h5"),
    "slp": ("landmarks.slp",),
}
PACKAGES = {  # modules that a format needs, and the extra that brings them
    "parquet": (("pyarrow",), "parquet"),
    "dlc": (("pandas", "tables"), "dlc"),
    "slp": (("sleap_io",), "slp"),
}


def data_files(folder: Path) -> list[Path]:
    """Where the results of all formats but the overlay would be."""
    return [folder / name for names in DATA.values() for name in names]
