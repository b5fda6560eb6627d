"""Landmarks -> box -> the next box."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.regions.motion import Motion, fit_box, relative

SHAPE = np.random.default_rng(3).uniform(-0.4, 0.4, (8, 2))
ONES = np.ones(8, np.float32)


def placed(x, y, side, angle=0.0):
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (side * SHAPE @ turn + (x, y) - 0.5).astype(np.float32)


@given(
    st.floats(-500, 2000), st.floats(-500, 2000), st.floats(10, 1000), st.floats(-math.pi, math.pi)
)
def test_the_box_goes_with_the_landmarks(x, y, side, angle):
    box, trust = fit_box(SHAPE, placed(x, y, side, angle), ONES)
    assert box == pytest.approx((x - side / 2, y - side / 2, side, side), abs=0.01, rel=1e-3)
    assert trust > 0.99


def test_a_box_and_its_landmarks_are_of_one_frame():
    box = (10.0, 20.0, 60.0, 60.0)
    points = placed(40, 50, 60)
    np.testing.assert_allclose(relative(points, box), SHAPE, atol=1e-6)


def test_one_stray_landmark_hardly_counts():
    points = placed(100, 100, 50)
    points[0] += 40
    (x, y, side, _), _ = fit_box(SHAPE, points, ONES)
    assert abs(x + side / 2 - 100) < 1 and abs(side - 50) < 3
    scores = ONES.copy()
    scores[0] = 0
    (x, y, side, _), _ = fit_box(SHAPE, points, scores)
    assert abs(x + side / 2 - 100) < 0.1 and abs(side - 50) < 0.1


def test_another_shape_is_not_trusted():
    other = np.random.default_rng(9).uniform(0, 50, (8, 2)).astype(np.float32)
    assert fit_box(SHAPE, other, ONES)[1] < 0.5
    assert fit_box(SHAPE, np.zeros((8, 2), np.float32), ONES) is None


def test_a_steady_path_is_foreseen():
    motion, step = Motion.of((0, 0, 50, 50), 0.0), 0.04
    misses = []
    for frame in range(1, 40):
        motion.predict(frame * step)
        truth = (5.0 * frame, -2.0 * frame, 50, 50)
        misses.append(math.dist(motion.box[:2], truth[:2]))
        motion.correct(truth, step, 1.0)
    assert max(misses[10:]) < 1.2  # of 5.4 pixels a frame


def test_growth_is_followed():
    motion = Motion.of((0, 0, 50, 50), 0.0)
    for frame in range(1, 60):
        motion.predict(frame * 0.04)
        motion.correct((0, 0, 50 * 1.02**frame, 50 * 1.02**frame), 0.04, 1.0)
    assert motion.side == pytest.approx(50 * 1.02**59, rel=0.05)


def test_a_motion_dies_away():
    motion = Motion(0, 0, math.log(50), 0.0, speed_x=100.0)
    motion.predict(100.0)
    assert 0 < motion.x < 50 and motion.speed_x == pytest.approx(0, abs=1e-6)


def test_jumps_are_limited_and_mistrust_holds_still():
    motion = Motion.of((0, 0, 50, 50), 0.0)
    motion.correct((1000, 0, 500, 500), 0.04, 0.0)
    assert motion == Motion.of((0, 0, 50, 50), 0.0)
    motion.correct((1000, 0, 500, 500), 0.04, 1.0)
    assert motion.x - 25 <= 25 and motion.side <= 65
