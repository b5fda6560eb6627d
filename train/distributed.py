"""torchrun's environment -> processes that train as one, each with its share of every batch.

Without torchrun there is one process, and nothing here does anything. Sums go over the whole batch
wherever a step depends on it: gradients, batch-norm statistics, means over what is visible. So N
processes take the steps that one would take with the same batch, up to rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lmk.runtime.errors import UserError
from lmk.runtime.owner import Owned


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def local_rank() -> int | None:
    """Which of this machine's processes torchrun says that this is; None without torchrun."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other processes that torchrun started, if it did, for the time of the block.

    NCCL between GPUs; what steers the run goes over the CPU (gloo), so that it costs no wait for
    the GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """The leader runs the block before the others do: what it caches they find."""
    if not leads():
        wait()
    yield
    if leads():
        wait()


def owned(path: Path) -> contextlib.AbstractContextManager[object]:
    """The output `path` for this run alone, which its leader sees to; see `Owned`."""
    return Owned(path) if leads() else contextlib.nullcontext()


def share(batch: int) -> slice:
    """This process's part of a batch; raises UserError if it cannot be shared out evenly."""
    if batch % size() or batch // size() < 2:
        raise UserError(
            f"--batch: got {batch}, expected a multiple of the {size()} processes, 2 or more each; "
            "change it"
        )
    rank = dist.get_rank() if dist.is_initialized() else 0
    each = batch // size()
    return slice(rank * each, (rank + 1) * each)


def agreed(values: Iterable[float]) -> list[float]:
    """The leader's values, in every process."""
    listed = list(values)
    if size() > 1:
        tensor = torch.tensor(listed, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        listed = tensor.tolist()
    return listed


def any_of(value: bool) -> bool:
    """Whether `value` holds in any process."""
    if size() == 1:
        return value
    tensor = torch.tensor(float(value))
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return bool(tensor)


def wait() -> None:
    """Go on when all processes have come here: what the leader has written is there."""
    if size() > 1:
        dist.barrier()


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes; carries no gradient."""
    if size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / size()


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` holds, over the whole batch; 0 if nowhere.

    In several processes each gets the share of its own values, times their number: the mean of
    what they get is the mean over the whole batch, and so are its gradients.
    """
    return (values * mask).sum() / mean(mask.sum().float()).clamp(min=1 / size())


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def synchronise(model: nn.Module) -> None:
    """Start from the leader's values, and let batch-norms see the whole batch from here on."""
    if size() == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.data, 0)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d  # the same parameters, under the same names


class _Sum(torch.autograd.Function):
    """The sum over the processes, through which gradients flow back to all of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # type: ignore[override]
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch-norm over the batches of all processes; on a CPU too, where SyncBatchNorm is not."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.numel() // values.shape[1] * size()
        sums = torch.stack((values.sum((0, 2, 3)), values.square().sum((0, 2, 3))))
        average, square = (_Sum.apply(sums) / count).unbind()
        variance = (square - average.square()).clamp(min=0)
        with torch.no_grad():
            momentum = cast(float, self.momentum)
            cast(Tensor, self.num_batches_tracked).add_(1)
            cast(Tensor, self.running_mean).lerp_(average, momentum)
            cast(Tensor, self.running_var).lerp_(variance * (count / (count - 1)), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - average * scale
        return torch.addcmul(shift.view(1, -1, 1, 1), values, scale.view(1, -1, 1, 1)).to(x.dtype)
