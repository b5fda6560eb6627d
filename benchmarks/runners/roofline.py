"""ONNX graph -> work and traffic; machine -> the most it does a second: how near a runner comes.

A runner can be no faster than the larger of work / ceiling of arithmetic and traffic / ceiling of
memory (Williams et al. 2009). Both ceilings are measured by PyTorch in the same run, with as many
threads as the runners have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod

import onnx
import torch
from torch import Tensor

from lmk.benchmarks.timing import seconds_of

_BATCH, _WIDTH, _SIDE = 8, 256, 32  # a convolution like those that take most of the work
_TRIALS = 12
_MIB = 1 << 20
_KINDS = {"fp32": torch.float32, "tf32": torch.float32}
_KINDS |= {"fp16": torch.float16, "bf16": torch.bfloat16}
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What one run takes at least."""

    flops: int  # of convolutions and matrix products, two a multiply-add
    elements: int  # their operands and results, once each: all else fused into them


@dataclass(frozen=True)
class Ceilings:
    """The most the machine was seen to do."""

    flops: dict[str, float]  # a second, by what is computed in: fp32, tf32, fp16, bf16
    bandwidth: float  # bytes a second, read and written

    def share(self, cost: Cost, precision: str, seconds: float) -> float | None:
        """The roofline's time over `seconds`; None where the arithmetic was not measured."""
        if precision not in self.flops:
            return None
        moved = cost.elements * _KINDS[precision].itemsize
        floor = max(cost.flops / self.flops[precision], moved / self.bandwidth)
        return round(floor / seconds, 4)


def count(model: onnx.ModelProto, batch: int) -> Cost:
    """The cost of one run of `batch` crops; raises ValueError for a shape that is not known."""
    shapes = _shapes(model, batch)
    flops = elements = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        tensors = [*filter(None, node.input), node.output[0]]
        unknown = [name for name in tensors if name not in shapes]
        if unknown:
            raise ValueError(f"tensor '{unknown[0]}': its shape is not known")
        first, second, result = (shapes[name] for name in (*tensors[:2], tensors[-1]))
        if node.op_type == "Conv":
            depth = prod(second[1:])  # multiply-adds an element: (O, I / groups, kh, kw)
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            depth = first[-2] if transposed else first[-1]
        flops += 2 * prod(result) * depth
        elements += sum(prod(shapes[name]) for name in tensors)
    return Cost(flops, elements)


def _shapes(model: onnx.ModelProto, batch: int) -> dict[str, Shape]:
    """Shapes of what the graph names, its free dimension being `batch`."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    fixed.graph.ClearField("value_info")  # holds the free dimension
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = batch
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return shapes


def measure(device: torch.device, precisions: Iterable[str]) -> Ceilings:
    """The ceilings of `device` in each of `precisions`, with PyTorch's present threads."""
    flops, on_gpu = {}, device.type == "cuda"
    side = 8192 if on_gpu else 1024
    for precision in dict.fromkeys(p for p in precisions if p in _KINDS):
        if precision == "fp16" and device.type == "cpu":
            continue  # PyTorch has no fast one: it would be no ceiling
        kind = _KINDS[precision]
        one, other = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        with arithmetic(precision):
            products = 2 * side**3 / _quickest(partial(torch.matmul, one, other), device)
            flops[precision] = max(products, _convolutions(device, kind))
    source = torch.zeros((1024 if on_gpu else 256) * _MIB // 4, device=device)
    copying = _quickest(partial(torch.empty_like(source).copy_, source), device)
    return Ceilings(flops, 2 * source.numel() * 4 / copying)


def highest(one: Ceilings, other: Ceilings) -> Ceilings:
    """The higher of two measurements of the same."""
    flops = {name: max(value, other.flops[name]) for name, value in one.flops.items()}
    return Ceilings(flops, max(one.bandwidth, other.bandwidth))


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Multiply fp32 on CUDA as TF32 if `precision` is "tf32", else as true fp32."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def _convolutions(device: torch.device, kind: torch.dtype) -> float:
    batch = _BATCH * (32 if device.type == "cuda" else 1)
    images = torch.randn(batch, _WIDTH, _SIDE, _SIDE, device=device).to(
        kind, memory_format=torch.channels_last
    )
    layer = torch.nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False, device=device)
    layer = layer.to(kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return 2 * images.numel() * _WIDTH * 9 / _quickest(lambda: layer(images), device)


@torch.inference_mode()
def _quickest(call: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the quickest of some calls: a ceiling is what the machine can, not what it does.

    On CUDA ten calls are enqueued at once, which hides their launches.
    """
    on_gpu = device.type == "cuda"
    calls = 10 if on_gpu else 1

    def trial() -> None:
        for _ in range(calls):
            call()
        if on_gpu:
            torch.cuda.synchronize(device)

    trial()
    return min(seconds_of(trial) for _ in range(_TRIALS)) / calls
