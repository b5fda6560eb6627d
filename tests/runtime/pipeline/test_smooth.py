"""Noisy points over time -> steady ones, without leaving the object behind."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.pipeline.smooth import OneEuro, Smoother

IMAGE = np.zeros((36, 64, 3), np.uint8)

few = settings(max_examples=20, deadline=None)


def run(points, times, smoother=None, scores=1.0, side=100.0, track=0, cut=False):
    """Points (T,K,2) at `times` through a smoother; returns (T,K,2)."""
    smoother = smoother or Smoother()
    points = np.asarray(points, np.float32)
    found = []
    for index, (time_s, each) in enumerate(zip(times, points, strict=True)):
        score = np.broadcast_to(np.float32(scores), each.shape[:1])
        detection = Detection(each, score, (0.0, 0.0, side, side / 2), track)
        found += smoother(Frame("clip", index, time_s, IMAGE, is_cut=cut), [detection])
    return np.stack([detection.points for detection in found])


def seconds(count, rate=25.0):
    return np.arange(count) / rate


@few
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=2), st.integers(5, 60))
def test_still_points_are_unchanged(point, rate):
    points = np.tile(np.float32(point), (10, 3, 1))
    np.testing.assert_array_equal(run(points, seconds(10, rate)), points)


@few
@given(st.floats(1e-3, 1e3), st.integers(0, 5))
def test_the_scale_of_the_picture_does_not_matter(scale, seed):
    points = np.random.default_rng(seed).normal(50, 5, (20, 3, 2))
    plain = run(points, seconds(20))
    scaled = run(points * scale, seconds(20), side=100.0 * scale)
    np.testing.assert_allclose(scaled, plain * scale, rtol=1e-4)


def test_noise_at_rest_is_lowered():
    noise = np.random.default_rng(0).normal(0, 0.5, (200, 4, 2))
    smooth = run(50 + noise, seconds(200))
    assert smooth[20:].std() < 0.5 * noise.std()
    assert (
        np.abs(np.diff(smooth[20:], 2, axis=0)).mean()
        < 0.3 * np.abs(np.diff(noise, 2, axis=0)).mean()
    )


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])  # sides a second
def test_lag_on_a_ramp_is_bounded(speed):
    ramp = np.tile((100 * speed * seconds(100))[:, None, None], (1, 2, 2))
    lag = (ramp - run(ramp, seconds(100)))[50:]
    assert lag.min() >= 0 and lag.max() < 1.7  # of a side of 100 pixels; 1/(2·pi·beta) is 0.016


def test_converges_after_a_step():
    points = np.zeros((150, 2, 2))
    points[10:] = 20.0
    smooth = run(points, seconds(150))
    assert (np.diff(smooth[10:], axis=0) >= -1e-4).all()
    assert np.abs(smooth[-1] - 20).max() < 0.01


def test_the_rate_may_vary():
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 60))
    even, odd = seconds(60), times
    for each in (even, odd):
        path = np.tile((30 * each)[:, None, None], (1, 2, 2))
        assert np.abs(run(path, each) - path).max() < 2.0


def test_low_scores_lean_on_the_past():
    points = np.full((30, 1, 2), 50.0)
    points[-1] += 10
    moved = [run(points, seconds(30), scores=score)[-1].max() - 50 for score in (0.9, 0.5, 0.2, 0)]
    assert moved[0] == moved[1] > moved[2] > moved[3] > 0


def test_starts_anew_at_a_cut_after_a_gap_and_for_another_track():
    smoother = Smoother()
    run(np.full((5, 2, 2), 10.0), seconds(5), smoother)
    moved = np.full((1, 2, 2), 30.0)
    assert run(moved, [0.2], smoother)[0].max() < 30
    assert (run(moved, [0.24], smoother, track=1) == 30).all()
    assert (run(moved + 9, [0.28], smoother, cut=True) == 39).all()
    assert (run(moved, [0.9], smoother) == 30).all()


def test_images_without_time_pass_unchanged():
    points = np.random.default_rng(0).normal(50, 5, (5, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(run(points, [0.0] * 5), points)


def test_box_scores_and_track_are_kept():
    detection = Detection(np.ones((2, 2), np.float32), np.ones(2, np.float32), (1, 2, 3, 4), 7)
    [found] = Smoother()(Frame("a", 0, 0.0, IMAGE), [detection])
    assert (found.box, found.track) == ((1, 2, 3, 4), 7) and found.scores is detection.scores


@few
@given(st.integers(0, 30))
def test_goes_on_where_it_was(stop):
    points = np.random.default_rng(1).normal(50, 3, (30, 3, 2)).astype(np.float32)
    whole = run(points, seconds(30))
    first, second = Smoother(), Smoother()
    parts = [run(points[:stop], seconds(30)[:stop], first)] if stop else []
    second.restore(json.loads(json.dumps(first.state())))
    parts += [run(points[stop:], seconds(30)[stop:], second)] if stop < 30 else []
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_lower_cut_off_is_steadier():
    noise = np.random.default_rng(0).normal(50, 0.5, (60, 4, 2))
    steady, loose = (run(noise, seconds(60), Smoother(hz))[10:].std() for hz in (0.3, 3.0))
    assert steady < loose


@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (float("nan"), 1), (1, -1), (1, float("inf"))])
def test_parameters_out_of_range(values):
    with pytest.raises(UserError, match="smoothing: got .* expected"):
        Smoother(*values)


def test_one_filter_keeps_time():
    one = OneEuro(1.0, 0.0)
    one(np.zeros((1, 2), np.float32), np.ones(1, np.float32), 1.0, 10.0)
    assert one.time_s == 1.0
