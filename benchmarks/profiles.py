"""Some steps -> what their time goes to: operators on a CPU, kinds of kernels on a GPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

OPERATORS = 8  # those that take most

# What the names of kernels hold, tried in this order: inductor names one after all that it fuses.
_KINDS = {
    "fused by inductor": r"^triton_",
    "copy": r"memcpy|memset|copy_kernel|nchwtonhwc|nhwctonchw|cat",
    "batch-norm": r"batch_?norm|bn_(fw|bw)",
    "convolution": r"conv|fprop|dgrad|wgrad|cudnn|xmma",
    "matrix product": r"gemm|gemv|nvjet|cutlass|cublas",
    "optimiser": r"multi_tensor|adam",
    "reduction": r"reduce|norm|softmax",
    "pointwise": r"elementwise",
}


def breakdown(turn: Callable[[], None], steps: int, device: torch.device) -> dict[str, Any]:
    """What the time of a turn of `steps` steps goes to, in percent; `turn` waits for the GPU."""
    return _kernels(turn, steps) if device.type == "cuda" else _operators(turn)


def _operators(turn: Callable[[], None]) -> dict[str, Any]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        turn()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    most = sorted(times, key=lambda name: -times[name])[:OPERATORS]
    return {
        "operators_percent": {name: _percent(times[name], sum(times.values())) for name in most}
    }


def _kernels(turn: Callable[[], None], steps: int) -> dict[str, Any]:
    """A GPU that is not busy waits for the CPU to start kernels: fewer or graphs would help."""
    started = perf_counter()
    turn()
    elapsed_us = (perf_counter() - started) * 1e6  # a profiler would slow it down
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        turn()
    events = [event for event in seen.key_averages() if event.device_type == DeviceType.CUDA]
    times: Counter[str] = Counter()
    for event in events:
        times[kind_of(event.key)] += event.self_device_time_total
    busy = sum(times.values())
    return {
        "kernels_percent": {kind: _percent(us, busy) for kind, us in times.most_common()},
        "kernels_per_step": round(sum(event.count for event in events) / steps),
        "gpu_busy_percent": _percent(busy, elapsed_us),
    }


def kind_of(kernel: str) -> str:
    """What a GPU kernel of that name does, in a word or three."""
    for kind, pattern in _KINDS.items():
        if re.search(pattern, kernel.lower()):
            return kind
    return "other"


def _percent(part: float, whole: float) -> float:
    return round(100 * part / max(whole, 1e-9), 1)
