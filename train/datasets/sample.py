"""What every data-set layout yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image, decoded when asked for."""

    name: str  # a path or an identifier that the user recognises
    read: Callable[[], NDArray[np.uint8]]  # HWC uint8 RGB; raises UnreadableImage
    points: NDArray[np.float32]  # (P,2) image pixels (x, y); NaN where missing; P = 0: no labels
    split: str = ""  # as the data set names it: train, val, test, …; "" where it has none


@dataclass(frozen=True)
class Dataset:
    """Samples of one category."""

    name: str
    samples: tuple[Sample, ...]
    landmark_names: tuple[str, ...]  # of `points`; () for unlabelled data
    fingerprint: str  # changes when the files change; keys the decoded cache
