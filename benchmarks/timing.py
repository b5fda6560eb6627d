"""Calls that take turns -> seconds of each -> latency, throughput, speed-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

CALLS = 5  # of a runner that are measured in a turn
LEAST_TURNS = 4
ENOUGH = 100  # calls for a 99th percentile; of fewer it would be the largest
Seconds = NDArray[np.float64]  # (turns, calls of a turn)


def seconds_of(call: Callable[[], object]) -> float:
    """How long `call` takes."""
    started = perf_counter()
    call()
    return perf_counter() - started


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    turns: int,
    limit_s: float = math.inf,
    each: int = 1,
    lead: int = 0,
    warm_up: int = 3,
) -> dict[str, Seconds]:
    """Seconds (turns,each) of the calls: in turns, so that whatever else runs here hits all alike.

    Beyond `limit_s` there are fewer turns, but LEAST_TURNS in any case. The first `lead` calls of a
    turn are not measured: the threads of the one before may still spin, and the caches are full of
    its data. warm_up: calls of each before all turns.
    """
    for _ in range(warm_up):
        for call in calls.values():
            call()
    seconds: dict[str, list[list[float]]] = {name: [] for name in calls}
    started = perf_counter()
    for done in range(turns):
        if done >= LEAST_TURNS and perf_counter() - started > limit_s:
            break
        for name, call in calls.items():
            for _ in range(lead):
                call()
            seconds[name].append([seconds_of(call) for _ in range(each)])
    return {name: np.array(values) for name, values in seconds.items()}


def latency(seconds: Seconds, batch: int) -> dict[str, float | None]:
    """Percentiles in milliseconds, crops a second, and the number of calls they are of.

    p99: None with fewer than ENOUGH calls. throughput: all crops over the time of all calls, not
    over their median: what stalls costs throughput too.
    """
    at = np.percentile(seconds, [50, 90, 99, 100])
    p50, p90, p99, most = (round(float(value) * 1e3, 4) for value in at)
    return {
        "p50": p50,
        "p90": p90,
        "p99": p99 if seconds.size >= ENOUGH else None,
        "max": most,
        "throughput": round(batch * seconds.size / float(seconds.sum()), 2),
        "repeats": int(seconds.size),
    }


def first_and_again(seconds: Sequence[float]) -> dict[str, float]:
    """`first_s`, and `again_s`, the median of all that follow, if any does."""
    found = {"first_s": round(seconds[0], 3)}
    if len(seconds) > 1:
        found["again_s"] = round(float(np.median(seconds[1:])), 3)
    return found


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
