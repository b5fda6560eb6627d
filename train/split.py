"""Which images are learnt from and which are kept to judge by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError

Indices = NDArray[np.intp]
DRAWN = "validation"  # the split of images that were drawn to be held out
HELD_OUT = ("val", "valid", DRAWN, "test")  # names of splits that are never learnt from


def is_held_out(split: str) -> bool:
    """Whether images of a split of that name are never learnt from."""
    return split.lower() in HELD_OUT


def split_indices(
    splits: tuple[str, ...], seed: int, fraction: float = 0.1
) -> tuple[Indices, Indices]:
    """Indices of training and validation images.

    Images of the splits val, valid, validation or test are validation; without any, a seeded
    random tenth.
    """
    held_out = np.array([is_held_out(split) for split in splits])
    if not held_out.any():
        order = np.random.default_rng(seed).permutation(len(splits))
        held_out[order[: max(1, round(len(splits) * fraction))]] = len(splits) > 1
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def drawn_digest(names: Sequence[str], splits: tuple[str, ...], seed: int) -> str | None:
    """What tells whether later the same images are held out; None where splits alone say which.

    What is drawn hangs on how many images there are and on their order: one more, and others are.
    """
    held_out = split_indices(splits, seed)[1]
    drawn = [names[index] for index in held_out if splits[index] in ("", DRAWN)]
    return hashlib.sha256("\n".join(drawn).encode()).hexdigest()[:16] if drawn else None


def split_for_training(name: str, splits: tuple[str, ...], seed: int) -> tuple[Indices, Indices]:
    """As `split_indices`; a lone image is both. Raises UserError if nothing is left to train on."""
    train, held_out = split_indices(splits, seed)
    if not len(train):
        raise UserError(
            f"{name}: got images of val and test splits only, expected some to train on; "
            "change the column 'split'"
        )
    return train, held_out if len(held_out) else train


def subset(indices: Indices, count: int | None, seed: int) -> Indices:
    """A seeded random `count` of `indices`; all of them for None. A larger set holds a smaller one.

    Raises UserError if there are not so many.
    """
    if count is None:
        return indices
    if count > len(indices):
        raise UserError(
            f"--images: got {count}, expected at most the {len(indices)} images there are to "
            "learn from; leave it out"
        )
    return np.sort(np.random.default_rng([seed, 1]).permutation(indices)[:count])
