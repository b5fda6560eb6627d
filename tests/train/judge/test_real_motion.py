"""Real motion: landmarks beside the places that a picture is known to have gone to."""

import numpy as np
import pytest

from lmk.train.judge.real_motion import NEIGHBOUR_S, moving_errors, neighbours


def test_neighbours_are_near_in_time_and_of_one_object():
    films = [("a", 0, 0.0), ("a", 1, 0.1), ("b", 0, 0.1), ("a", 0, 0.2), ("a", 0, 0.1)]
    films += [("a", 0, 0.2 + 2 * NEIGHBOUR_S)]
    assert neighbours(films) == [(0, 4), (4, 3)]


def test_errors_are_those_from_where_the_picture_went():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (20, 20), dtype=np.uint8)
    scene = np.kron(coarse, np.ones((10, 10), np.uint8))
    scene[100:, 100:] = 90  # plain
    images = np.stack([scene[20:148, 20:148], scene[16:144, 14:142]])[..., None].repeat(3, 3)
    gone = np.float32([6, 4])
    still = np.float32([[40, 40], [60, 30], [50, 64], [112, 112]])
    found = np.stack([still, still + gone])
    found[1, 1] += (3, -4)  # one that slides
    found[1, 2] = still[2]  # one that stays where it was in the crop
    errors = moving_errors(images, found, [(0, 1)])
    assert errors.shape == (2, 4)
    assert errors[0, :3] == pytest.approx([0, 5, np.hypot(*gone)], abs=0.01)
    assert errors[1, :3] == pytest.approx([0, 5, np.hypot(*gone)], abs=0.01)  # and backward
    assert np.isnan(errors[:, 3]).all()
    assert moving_errors(images, found, []).shape == (0, 4)
