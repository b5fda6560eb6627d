"""Adam for projection matrices: W·theta moves alike in every direction that theta spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lmk.train.network import ProjectedConv2d

_LEAST = 0.1  # of the mean variance: what a direction that theta hardly spans is taken to have


class WhitenedAdam(torch.optim.Adam):
    """Adam in which W of each of `layers` is V·M, with M from `whitening`, and V takes the steps.

    Steps of Adam are of one size in each entry of W. What they move W·theta by hangs on theta: most
    along the few directions in which its filters are alike, a hundredth as much along others. M
    makes those equal, and a step as long as one of Adam on the weights themselves. The solutions
    are the same, for M is invertible, and so is what is written: W.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], layers: Iterable[ProjectedConv2d], **options: Any
    ) -> None:
        super().__init__(groups, **options)
        self._whitening = {layer.projection: whitening(layer.theta) for layer in layers}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step, by the gradients there are."""
        before = {}
        for w, m in self._whitening.items():
            if w.grad is not None:
                before[w] = w.detach().clone()
                w.grad = w.grad @ m  # of V, for M is symmetric
        loss = super().step(closure)
        for w, was in before.items():
            w.copy_(was + (w - was) @ self._whitening[w])
        return loss


def whitening(theta: Tensor) -> Tensor:
    """M (O,O), by which the filters of theta (O,…) are of one length and at right angles.

    Their length is the root of theirs, of N entries, over O: so that a change of M·theta by O
    entries of one size is as long as one of N such entries in theta.
    """
    filters = theta.flatten(1).double()
    count, entries = filters.shape
    variances, directions = torch.linalg.eigh(filters @ filters.T)
    least = _LEAST * variances.mean()
    lengths = (entries / count / (variances.clamp(min=0) + least)).sqrt()
    return ((directions * lengths) @ directions.T).to(theta.dtype)
