"""What every data-set layout yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.images import Box
from lmk.train.datasets.scheme import NO_SCHEME, Scheme


@dataclass(frozen=True)
class Sample:
    """One object in one image, decoded when asked for."""

    name: str  # a path or an identifier that the user recognises
    read: Callable[[], NDArray[np.uint8]]  # HWC uint8 RGB; raises UnreadableImage
    points: NDArray[np.float32]  # (P,2) image pixels (x, y); NaN where missing; P = 0: no labels
    split: str = ""  # as the data set names it: train, val, test, …; "" where it has none
    box: Box | None = None  # of the object, where the data set gives one apart from the points
    length: float = float("nan")  # pixels that errors are divided by, if the scheme asks for it


@dataclass(frozen=True)
class Dataset:
    """Samples of one category."""

    name: str
    samples: tuple[Sample, ...]
    fingerprint: str  # changes when the files change; keys the decoded cache
    scheme: Scheme = NO_SCHEME  # of the points
    problems: tuple[str, ...] = ()  # what is missing or wrong and was left out, a line each
    notes: tuple[str, ...] = ()  # what is left out by design or good to know, a line each

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Of `points`; () for unlabelled data."""
        return self.scheme.names


def unlabelled(root: Path) -> tuple[str, ...]:
    """The landmark names of a layout without labels: none."""
    return ()


@dataclass(frozen=True)
class Layout:
    """How one data set lies on the disk."""

    name: str  # of --layout
    looks_for: str  # what a folder must hold, in words, for error messages
    recognises: Callable[[Path], bool]  # cheap: a few names, or the ends of a file
    open: Callable[[Path], Dataset]  # raises UserError: what was looked for, what was found
    names: Callable[[Path], tuple[str, ...]] = unlabelled  # of the landmarks, reading little
