"""Discs, lines and labels: where they belong, as strong as told, cut where the image ends."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmk.runtime.detection import Detection
from lmk.runtime.outputs.drawing import colour, draw, draw_label, draw_lines

WHITE = np.full((1, 3), 255, np.uint8)


def _detection(points, scores, side=400):
    points = np.array(points, np.float32).reshape(-1, 2)
    return Detection(points, np.array(scores, np.float32), (0, 0, side, side))


@pytest.mark.parametrize(("x", "y"), [(40.0, 30.0), (40.5, 30.25), (39.7, 30.9)])
def test_disc_is_centred_to_a_fraction_of_a_pixel(x, y):
    black, white = (np.full((60, 80, 3), value, np.uint8) for value in (0, 255))
    detection = _detection([(x, y)], [1.0])
    # How much of the texture is gone is how much of a pixel is covered.
    change = 255.0 - (draw(white, detection).astype(float) - draw(black, detection)).mean(-1)
    rows, columns = np.mgrid[:60, :80]
    assert (change * columns).sum() / change.sum() == pytest.approx(x, abs=0.05)
    assert (change * rows).sum() / change.sum() == pytest.approx(y, abs=0.05)


def test_image_given_is_untouched_and_the_rest_of_it_too():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = image.copy()
    drawn = draw(image, _detection([(20, 20)], [1.0]))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(drawn[:, 40:], before[:, 40:])
    assert tuple(drawn[20, 20]) == colour(0)


@pytest.mark.parametrize("texture", [0, 128, 255])
def test_unsure_landmarks_of_small_images_can_be_seen(texture):
    image = np.full((144, 144, 3), texture, np.uint8)
    drawn = draw(image, _detection([(70, 70)], [0.0], side=10)).astype(int)
    change = np.abs(drawn - texture).max(-1)
    assert (change > 50).sum() > 12
    assert (change[70, 68:73] > 50).all()  # a radius of 3: two pixels to each side are full


def test_ring_is_white_and_outline_dark():
    grey = np.full((99, 99, 3), 128, np.uint8)
    line = draw(grey, _detection([(49, 49)], [1.0], side=800))[49, 49:].astype(int)  # radius 10
    assert tuple(line[9]) == colour(0)
    assert (line[11] == 255).all() and (line[13] == 0).all() and (line[15] == 128).all()


def test_low_scores_fade():
    black = np.zeros((40, 40, 3), np.uint8)
    brightness = [draw(black, _detection([(20, 20)], [score])).sum() for score in (0, 0.5, 1)]
    assert 0 < brightness[0] < brightness[1] < brightness[2]


def test_size_follows_the_object():
    black = np.zeros((99, 99, 3), np.uint8)
    areas = [
        (draw(black, _detection([(50, 50)], [1.0], side)).max(-1) > 0).sum()
        for side in (10, 200, 400, 600)
    ]
    assert areas == sorted(areas) and areas[0] >= 9 and areas[1] < areas[-1]


@pytest.mark.parametrize(
    "point", [(-500, 5), (5, 1e9), (float("nan"), 3), (float("inf"), 3), (-2.5, -2.5), (39, 41)]
)
def test_points_off_the_image_do_no_harm(point):
    image = np.zeros((40, 40, 3), np.uint8)
    assert draw(image, _detection([point], [0.5])).shape == image.shape


def test_colours_are_stable_and_apart():
    first = [colour(index) for index in range(20)]
    assert len(set(first)) == 20
    distances = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(first) for b in first[:i]]
    assert min(distances) > 40


def _cover(start, end, width, shape=(60, 80), opacity=1.0):
    """How much of each pixel one line covers, in [0, 1]."""
    image = np.zeros((*shape, 3), np.uint8)
    draw_lines(image, np.array([start]), np.array([end]), WHITE, np.array([opacity]), width)
    return image[..., 0] / 255


inside = st.tuples(st.floats(15, 64), st.floats(15, 44))


@settings(deadline=None, max_examples=60)
@given(inside, inside, st.floats(1, 8))
@example((15, 15), (23, 23), 1)  # a diagonal through the centres of pixels
@example((15.0, 15.0), (15.0, 15.000000000000002), 1)  # as good as a point
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


@pytest.mark.parametrize("texture", [0, 128, 255])
def test_letters_are_white_with_a_dark_outline(texture):
    image = np.full((40, 120, 3), texture, np.uint8)
    draw_label(image, "nose", (20, 20), 16)
    changed = (image != texture).any(-1)
    rows, columns = np.nonzero((image > 240).any(-1) if texture < 200 else (image < 40).all(-1))
    assert changed.sum() > 60 and columns.min() in range(19, 24) and 16 < rows.mean() < 24


@pytest.mark.parametrize("corner", [(-30, 5), (200, 20), (60, -9), (60, 400)])
def test_labels_move_into_the_image(corner):
    image = np.full((40, 120, 3), 90, np.uint8)
    draw_label(image, "tail", corner, 14)
    whole = np.full((200, 300, 3), 90, np.uint8)
    draw_label(whole, "tail", (100, 100), 14)
    assert (image != 90).sum() == (whole != 90).sum()


def test_image_smaller_than_its_label():
    image = np.zeros((4, 5, 3), np.uint8)
    draw_label(image, "a long name", (1, 1), 20)
    assert image.shape == (4, 5, 3)


def test_empty_name_is_nothing():
    image = np.zeros((40, 40, 3), np.uint8)
    draw_label(image, "", (5, 5), 20)
    assert not image.any()
