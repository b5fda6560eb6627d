"""Losses -> one step of every optimiser, in as many parts as the memory needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmk.runtime.errors import UserError
from lmk.train import distributed

Losses = dict[str, Tensor]


class Descent:
    """Take steps down the sum of the losses, each model's gradient clipped to norm `clip`.

    When a step runs out of memory the batch is halved and its gradients accumulated, from then on;
    batch-norms then see the parts, which is what differs from a whole batch.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        clip: float | None,
        say: Callable[[str], None],
    ) -> None:
        self.models, self.optimizers, self.clip, self.say = models, optimizers, clip, say
        self.parts = 1

    def __call__(
        self, batch: tuple[Tensor, ...], losses_of: Callable[..., Losses], lr: float
    ) -> Losses:
        """The losses of `batch`, by name, before the step. Raises UserError if not even two
        images fit into memory."""
        while True:
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            try:
                losses = self._accumulate(batch, losses_of)
                break
            except RuntimeError as error:
                if not out_of_memory(error) or distributed.size() > 1:
                    raise
            self._halve(len(batch[0]))
        for name, optimizer in self.optimizers.items():
            distributed.average_gradients(self.models[name].parameters())
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("factor", 1.0)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.models[name].parameters(), self.clip)
            optimizer.step()
        return losses

    def _accumulate(self, batch: tuple[Tensor, ...], losses_of: Callable[..., Losses]) -> Losses:
        """Gradients of the mean over all images, a part at a time."""
        whole, totals = len(batch[0]), Losses()
        for part in zip(*(tensor.tensor_split(self.parts) for tensor in batch), strict=True):
            share = len(part[0]) / whole
            losses = losses_of(*part)
            (torch.stack(list(losses.values())).sum() * share).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() * share
        return totals

    def _halve(self, images: int) -> None:
        if images // (2 * self.parts) < 2:
            raise UserError(
                f"out of memory with {images // self.parts} images at a time, expected room for "
                "2; take a smaller --width or --generator-width, or another --device"
            )
        self.parts *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = -(-images // self.parts)
        self.say(f"out of memory: the batch is taken in {self.parts} parts of {size} from here on")


def out_of_memory(error: Exception) -> bool:
    """Whether there was no room, on the GPU or off it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move every tensor of `average` towards that of `model`, its twin, by 1 - `decay`.

    The running statistics of batch-norms too; what is no float is copied.
    """
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1 - decay)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)


def warmup_cosine(progress: float, warmup: float = 0.03) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def step_decay(progress: float) -> float:
    """Factor of the learning rate in the authors' code: a tenth at epochs 30 and 60 of 80."""
    return 0.1 ** int(progress * 80 // 30)
