"""What tells objects from the rest: measured on both, robust against landmarks that wobble."""

import numpy as np
import pytest

from lmk.runtime.detection import Detection
from lmk.runtime.model import gate
from lmk.runtime.regions import Acceptance, Seen, accept, see
from lmk.runtime.regions.search import search_frame


def _some(count, scores, errors, seed=0):
    """Places at which the landmarks have about those scores and errors (K)."""
    rng = np.random.default_rng(seed)

    def around(values):
        return np.asarray(values) * rng.uniform(0.8, 1.25, len(values))

    points = np.zeros((len(scores), 2), np.float32)
    box = (0.0, 0.0, 1.0, 1.0)
    return [
        Seen(Detection(points, np.clip(around(scores), 0, 1), box), around(errors), 0.2)
        for _ in range(count)
    ]


OTHERS = _some(60, [0.5] * 6, [0.05] * 6, seed=1)


def _taken(acceptance, seen):
    return np.mean(
        [
            acceptance.holds(acceptance.mean(one.first.scores), acceptance.mean(one.errors))
            for one in seen
        ]
    )


@pytest.mark.parametrize("errors", [[0.006] * 6, [0.02] * 6, [0.006] * 4 + [0.09] * 2])
def test_objects_are_told_from_the_rest(errors):
    objects = _some(40, [0.8] * 6, errors)
    measured = accept(objects[::2], OTHERS[::2])
    assert _taken(measured, objects[1::2]) >= 0.9 and _taken(measured, OTHERS[1::2]) <= 0.05
    # The old constants know nothing of this pack.
    assert errors[-1] < 0.01 or _taken(Acceptance(), objects) < 0.1


def test_landmarks_that_wobble_count_little():
    weights = np.array(accept(_some(40, [0.8] * 6, [0.006] * 4 + [0.09] * 2), OTHERS).weights)
    assert weights.mean() == pytest.approx(1, abs=1e-3) and weights[4:].max() < 0.05


def test_what_cannot_be_told_apart_is_no_free_pass():
    alike = accept(_some(40, [0.6] * 6, [0.04] * 6), OTHERS)
    assert alike.error < 0.2
    assert accept(_some(7, [0.8] * 6, [0.01] * 6), OTHERS) is None  # too few to tell


def test_of_a_network_that_has_learnt_nothing_a_pack_can_be_made():
    measured = accept(_some(40, [0.01] * 6, [30.0] * 5 + [1e-7]), _some(40, [0.01] * 6, [30.0] * 6))
    gate.check({"it": measured.to_json()}, {"it": gate.ACCEPTANCE}, "pack", "-")


def test_it_goes_through_json():
    measured = accept(_some(40, [0.8] * 6, [0.01] * 6), OTHERS)
    assert Acceptance.from_json(measured.to_json()) == measured
    assert Acceptance.from_json(None) == Acceptance()


def test_a_measured_model_finds_its_objects_at_their_size(spots):
    landmarker = spots.landmarker()
    things = [(150.0, 100.0, 120), (90.5, 160.25, 70), (60.0, 110.0, 90)] * 4
    pictures = [spots.picture(240, 400, thing, seed=n) for n, thing in enumerate(things)]
    boxes = [(x - side / 2, y - side / 2, side, side) for x, y, side in things]
    objects = see(landmarker, pictures, boxes)
    others = see(landmarker, pictures, [(250.0, 60.0, 90.0, 90.0)] * len(pictures))
    measured = accept(objects, others)
    landmarker.runner.measured(measured)
    for picture, (x, y, side) in zip(pictures[:3], things, strict=False):
        [found] = search_frame(landmarker, picture, 1)
        box = found.detection.box
        assert box[2] == pytest.approx(side, rel=0.16)
        assert np.hypot(box[0] + box[2] / 2 - x, box[1] + box[3] / 2 - y) < 0.15 * side
    assert search_frame(landmarker, spots.picture(240, 320, seed=2), 1) == []
