"""Lines: where they belong, as wide and as opaque as told, and cheap where they are not."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmk.runtime.outputs.drawing import draw_lines

WHITE = np.full((1, 3), 255, np.uint8)


def _cover(start, end, width, shape=(60, 80), opacity=1.0):
    """How much of each pixel one line covers, in [0, 1]."""
    image = np.zeros((*shape, 3), np.uint8)
    draw_lines(image, np.array([start]), np.array([end]), WHITE, np.array([opacity]), width)
    return image[..., 0] / 255


inside = st.tuples(st.floats(15, 64), st.floats(15, 44))


@settings(deadline=None, max_examples=60)
@given(inside, inside, st.floats(1, 8))
@example((15, 15), (23, 23), 1)  # a diagonal through the centres of pixels
@example((44.0, 16.0), (16.1, 43.4), 1)  # nearly one: its pixels drift from centre to edge
def test_area_and_centre_are_those_of_the_line(start, end, width):
    cover = _cover(start, end, width)
    length = np.hypot(*np.subtract(end, start))
    assert cover.sum() == pytest.approx(length * width + np.pi * width**2 / 4, rel=0.08, abs=1.5)
    rows, columns = np.mgrid[:60, :80]
    middle = (cover * columns).sum() / cover.sum(), (cover * rows).sum() / cover.sum()
    assert middle == pytest.approx(np.add(start, end) / 2, abs=0.2)


far = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))


@settings(deadline=None, max_examples=60)
@given(st.one_of(far, inside), far)
def test_lines_that_leave_the_image_are_cut_not_changed(start, end):
    """What is in a small image is what a line shows that reaches only a little over its border."""
    cover = _cover(start, end, 2.0)
    assert cover.shape == (60, 80)
    rows, columns = np.nonzero(cover)
    way = np.subtract(end, start) / max(np.hypot(*np.subtract(end, start)), 1e-9)
    off = (columns - start[0]) * way[1] - (rows - start[1]) * way[0]
    assert np.abs(off).max(initial=0) <= 1 + np.sqrt(0.5) + 1e-3


@pytest.mark.parametrize(
    "point", [(np.nan, 3), (np.inf, 3), (-1e30, 1e30), (-50, -50), (1e308, -1e308)]
)
def test_points_that_are_nowhere_do_no_harm(point):
    assert _cover(point, point, 3.0).sum() == 0
    _cover(point, (5, 5), 3.0)


def test_opacity_and_colour():
    image = np.full((9, 9, 3), 100, np.uint8)
    colours, opacities = np.array([[200, 100, 0]], np.uint8), np.array([0.5])
    draw_lines(image, np.array([[0, 4.0]]), np.array([[8, 4.0]]), colours, opacities, 3.0)
    assert tuple(image[4, 4]) == (150, 100, 50) and tuple(image[0, 4]) == (100, 100, 100)


def test_where_lines_meet_they_do_not_add_up():
    image = np.zeros((20, 20, 3), np.uint8)
    starts, ends = np.array([[2, 10.0], [10, 10]]), np.array([[10, 10.0], [18, 10]])
    draw_lines(image, starts, ends, np.repeat(WHITE, 2, 0), np.array([0.5, 0.25]), 4.0)
    assert image[10, 10, 0] == image[10, 5, 0] == 128 and image[10, 15, 0] == 64


def test_no_line_is_fine():
    image = np.zeros((5, 5, 3), np.uint8)
    none = np.empty((0, 2))
    draw_lines(image, none, none, np.empty((0, 3), np.uint8), np.empty(0), 2.0)
    assert not image.any()
