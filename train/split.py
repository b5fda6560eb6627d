"""Which images are learnt from and which are kept to judge by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def split_indices(
    splits: tuple[str, ...], seed: int, fraction: float = 0.1
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of training and validation images.

    Images of the splits val, valid, validation or test are validation; without any, a seeded
    random tenth.
    """
    held_out = np.array([s.lower() in ("val", "valid", "validation", "test") for s in splits])
    if not held_out.any():
        order = np.random.default_rng(seed).permutation(len(splits))
        held_out[order[: max(1, round(len(splits) * fraction))]] = len(splits) > 1
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
