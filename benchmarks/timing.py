"""Calls that take turns -> seconds of each -> latency, throughput, speed-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

CALLS = 5  # measured in a turn
_LEAST_TURNS = 4
_WARM_UP = 3
ENOUGH = 100  # calls for a 99th percentile; of fewer it would be the largest
Seconds = NDArray[np.float64]  # (turns, CALLS)


def take_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, limit_s: float
) -> dict[str, Seconds]:
    """Seconds of at least `repeats` calls of each, in turns of CALLS; fewer beyond `limit_s`.

    Turns, so that whatever else the machine does hits all alike. The first call of a turn is not
    measured: the threads of the one before may still spin, and the caches are full of its data.
    """
    for _ in range(_WARM_UP):
        for call in calls.values():
            call()
    turns: dict[str, list[list[float]]] = {name: [] for name in calls}
    started = perf_counter()
    for done in range(max(math.ceil(repeats / CALLS), _LEAST_TURNS)):
        if done >= _LEAST_TURNS and perf_counter() - started > limit_s:
            break
        for name, call in calls.items():
            call()
            turns[name].append([_timed(call) for _ in range(CALLS)])
    return {name: np.array(seconds) for name, seconds in turns.items()}


def _timed(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def latency(seconds: Seconds, batch: int) -> dict[str, float | None]:
    """Percentiles in milliseconds, crops a second, and the number of calls they are of.

    p99: None with fewer than ENOUGH calls. throughput: all crops over the time of all calls, not
    over their median: what stalls costs throughput too.
    """
    p50, p90, p99 = np.percentile(seconds, [50, 90, 99])
    return {
        "p50": round(float(p50) * 1e3, 4),
        "p90": round(float(p90) * 1e3, 4),
        "p99": round(float(p99) * 1e3, 4) if seconds.size >= ENOUGH else None,
        "max": round(float(seconds.max()) * 1e3, 4),
        "throughput": round(batch * seconds.size / float(seconds.sum()), 2),
        "repeats": int(seconds.size),
    }


def speed_up(base: Seconds, other: Seconds) -> float:
    """How many times faster `other` is: the median of the ratios turn by turn."""
    turns = np.median(base, axis=1) / np.median(other, axis=1)
    return round(float(np.median(turns)), 3)


def drift(found: NDArray[np.float32], eager: NDArray[np.float32]) -> dict[str, float]:
    """Euclidean distances of landmarks (N,K,2) in crop pixels: mean, 99th percentile, largest."""
    distance = np.linalg.norm(found.astype(np.float64) - eager, axis=2)
    return {
        "drift_mean": float(distance.mean()),
        "drift_p99": float(np.percentile(distance, 99)),
        "drift_max": float(distance.max()),
    }


def interleaved(
    runners: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds of each of `repeats` calls of every runner, taking turns: drift hits all alike."""
    for _ in range(warmup):
        for call in runners.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, call in runners.items():
            started = perf_counter()
            call()
            seconds[name].append(perf_counter() - started)
    return seconds


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        "p50_ms": round(float(np.median(seconds)) * 1e3, 3),
        "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 3),
    }
