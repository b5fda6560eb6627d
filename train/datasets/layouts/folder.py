"""Layout `folder`: any images, at any depth, without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.images import IMAGE_SUFFIXES, read_image
from lmk.train.datasets.sample import Dataset, Layout, Sample

NO_POINTS = np.zeros((0, 2), np.float32)


def open_folder(root: Path) -> Dataset:
    """All images under `root`, sorted by path; raises UserError when there is none."""
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        raise UserError(
            f"{root}: no image found, expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}; "
            "check the folder"
        )
    samples = tuple(
        Sample(str(path.relative_to(root)), partial(read_image, path), NO_POINTS) for path in paths
    )
    return Dataset(root.resolve().name, samples, fingerprint(paths))


def fingerprint(paths: Iterable[Path]) -> str:
    """sha256 over path, size and modification time of every file."""
    sha = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            sha.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            sha.update(f"{path}\0missing\n".encode())
    return sha.hexdigest()


# The last resort: any folder with an image in it.
LAYOUT = Layout("folder", "images, at any depth, without labels", lambda root: True, open_folder)
