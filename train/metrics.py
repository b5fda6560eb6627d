"""Points against annotated points: the share that is found."""

from __future__ import annotations

import numpy as np

from lmk.train.datasets.scheme import PointArray


def pck(
    predicted: PointArray, truth: PointArray, lengths: PointArray, threshold: float = 0.2
) -> tuple[float, PointArray]:
    """Share of points (N,P,2) found within `threshold` × length (N,): overall, and each (P,)."""
    error = np.linalg.norm(predicted - truth, axis=2) / lengths[:, None]
    known = np.isfinite(error)
    correct = (error < threshold) & known
    each = correct.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return float(correct.sum() / max(known.sum(), 1)), each.astype(np.float32)
