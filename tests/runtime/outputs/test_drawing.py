"""Discs: where they belong, in their colour, as strong as their score."""

import numpy as np
import pytest

from lmk.runtime.detection import Detection
from lmk.runtime.outputs.drawing import colour, draw


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
