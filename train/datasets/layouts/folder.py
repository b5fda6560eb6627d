"""Layout `folder`: any images, at any depth, without labels; pages of stacks are images too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.files import printable
from lmk.runtime.images import IMAGE_SUFFIXES, num_pages, read_image
from lmk.runtime.sources import look_into
from lmk.train.datasets.sample import Dataset, Layout, Sample

NO_POINTS = np.zeros((0, 2), np.float32)


def open_folder(root: Path) -> Dataset:
    """All images under `root`, sorted by path; raises UserError when there is none.

    Each real file once, links followed; what is of a kind that is not read, and results of earlier
    runs, which are left out, are told in `problems`.
    """
    found = look_into(root)
    told = found.told + found.left_out
    stacks = [path for path in found.films if path.suffix.lower() in IMAGE_SUFFIXES]
    samples = []
    for path in sorted(found.images + stacks):
        name = printable(str(path.relative_to(root)))
        if path in stacks:
            for page in range(num_pages(path)):
                read = partial(read_image, path, page=page)
                samples.append(Sample(f"{name}#{page}", read, NO_POINTS))
        else:
            samples.append(Sample(name, partial(read_image, path), NO_POINTS))
    if not samples:
        raise UserError(
            f"{root}: no image found, expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}"
            f"{''.join(f' ({line})' for line in told)}; check the folder"
        )
    key = fingerprint([*found.images, *stacks])
    return Dataset(printable(root.resolve().name), tuple(samples), key, problems=tuple(told))


def fingerprint(paths: Iterable[Path]) -> str:
    """sha256 over path, size and modification time of every file."""
    sha = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            line = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        except OSError:
            line = f"{path}\0missing\n"
        sha.update(os.fsencode(line))
    return sha.hexdigest()


# The last resort: any folder with an image in it.
LAYOUT = Layout("folder", "images, at any depth, without labels", lambda root: True, open_folder)
