"""Share of the budget that is used -> factor of the learning rate."""

from __future__ import annotations

import math


def warmup_cosine(progress: float, warmup: float = 0.03) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def step_decay(progress: float) -> float:
    """Factor of the learning rate in the authors' code: a tenth at epochs 30 and 60 of 80."""
    return 0.1 ** int(progress * 80 // 30)
