"""Turns, and what the seconds are summed up to."""

import numpy as np
import pytest

from lmk.benchmarks.timing import (
    CALLS,
    ENOUGH,
    LEAST_TURNS,
    drift,
    first_and_again,
    latency,
    speed_up,
    take_turns,
)


def test_runners_take_turns_and_the_first_call_of_each_is_not_measured():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    seconds = take_turns(calls, 8, limit_s=60, each=CALLS, lead=1)
    assert {name: values.shape for name, values in seconds.items()} == {"a": (8, 5), "b": (8, 5)}
    turns = "".join(called[6:])  # after three calls of each
    assert turns == ("a" * (CALLS + 1) + "b" * (CALLS + 1)) * 8


def test_turns_end_when_the_time_is_over_but_not_before_there_are_four():
    assert take_turns({"a": lambda: None}, 10**6, limit_s=0)["a"].shape == (LEAST_TURNS, 1)
    assert take_turns({"a": lambda: None}, 1, limit_s=0)["a"].size == 1


def test_the_first_of_several_starts_stands_alone():
    assert first_and_again([1.5]) == {"first_s": 1.5}
    assert first_and_again([9.0, 1.0, 5.0, 3.0]) == {"first_s": 9.0, "again_s": 3.0}


def test_latency_is_in_milliseconds_and_throughput_in_crops():
    found = latency(np.arange(1, 101).reshape(20, 5) / 1000, batch=8)
    expected = {"p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100.0, "repeats": 100}
    assert found == {**expected, "throughput": pytest.approx(8 / 0.0505, abs=0.01)}
    stalled = latency(np.array([[0.01] * 4 + [0.06]]), batch=8)  # 40 crops in 0.1 s
    assert stalled["throughput"] == pytest.approx(400) and stalled["p50"] == 10


def test_no_99th_percentile_of_few_calls():
    assert latency(np.ones((19, 5)), 1)["p99"] is None
    assert latency(np.ones((ENOUGH // 5, 5)), 1)["p99"] == 1000


def test_speed_up_survives_a_machine_that_slows_down_for_all():
    other = np.full((10, CALLS), 0.01)
    base = 3 * other
    base[5:], other[5:] = base[5:] * 7, other[5:] * 7
    assert speed_up(base, other) == pytest.approx(3)


def test_drift_is_euclidean_in_pixels():
    eager = np.zeros((2, 5, 2), np.float32)
    found = eager.copy()
    found[1, 3] = 3, 4
    values = drift(found, eager)
    assert values["drift_mean"] == pytest.approx(0.5) and values["drift_max"] == 5
    assert 4 < values["drift_p99"] < 5
