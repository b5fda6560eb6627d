"""Seed and step -> random draws: nothing of them needs to be saved for a resume."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def generator(seed: int, *counters: int) -> torch.Generator:
    """Random draws that depend on seed and counters alone: nothing to save for a resume."""
    mixed = seed
    for counter in counters:
        mixed = (mixed * 6364136223846793005 + counter + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)


def batch_indices(count: int, batch: int, step: int, seed: int) -> Tensor:
    """Indices (batch,) for `step`: a new permutation of 0 … count-1 every epoch, no partial batch.

    A set smaller than the batch is repeated.
    """
    if count < batch:
        return torch.randint(count, (batch,), generator=generator(seed, 0, step))
    epoch, position = divmod(step, count // batch)
    return _order(count, seed, epoch)[position * batch : (position + 1) * batch].clone()


@functools.lru_cache(maxsize=2)  # drawn once an epoch, not once a step
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, 0, epoch))
