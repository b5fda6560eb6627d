"""point_maps: what no landmark tells is learnt, and what is said of left-out crops is honest."""

import numpy as np
import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train.judge.point_fit import Fit
from lmk.train.judge.point_maps import Learning, Learnt, find_all, learn_maps, left_out_parts
from lmk.train.network import HourglassConfig, LandmarkNetwork, with_maps

SIZE, AROUND, LANDMARKS = 64, 80, 3
HALVES = [np.arange(8), np.arange(8, 16)]
THIRDS = [np.arange(2), np.arange(2, 4), np.arange(4, 7)]


@pytest.fixture(scope="module")
def model(shared_core):
    """With batch-norms that have seen something."""
    return with_maps(shared_core, [[row] for row in range(LANDMARKS)]).eval()


@pytest.fixture(scope="module")
def dots():
    """Grey pictures with a bright dot and a dark one anywhere; the points are where they are."""
    rng = np.random.default_rng(0)
    around = rng.integers(90, 110, (16, AROUND, AROUND, 3), dtype=np.uint8)
    points = rng.uniform(8, SIZE - 8, (16, 2, 2)).astype(np.float32)
    margin = (AROUND - SIZE) // 2
    y, x = np.mgrid[:AROUND, :AROUND]
    for picture, both in zip(around, points, strict=True):
        for (px, py), value in zip(both + margin, (255, 0), strict=True):
            picture[(x - px) ** 2 + (y - py) ** 2 <= 25] = value
    return around[:, margin:-margin, margin:-margin].copy(), around, points


@pytest.fixture(scope="module")
def learnt(model, dots):
    return learn_maps(model, *dots, HALVES, Learning(steps=60, lr=1e-2))


def test_points_that_no_landmark_tells_are_found_where_they_were_left_out(learnt, dots):
    points = dots[2]
    away = np.linalg.norm(learnt.left_out - points, axis=2).mean()
    flat = np.linalg.norm(points.mean(axis=0) - points, axis=2).mean()
    assert away < flat / 2
    assert (learnt.fit.weight == np.hstack((np.zeros((2, LANDMARKS)), np.eye(2)))).all()
    assert learnt.model.config.num_landmarks == LANDMARKS + 2 and learnt.maps == [0, 1]


def test_the_landmarks_are_held_where_they_were(learnt, model, dots):
    before, after = find_all(model, dots[0]), find_all(learnt.model, dots[0])
    assert np.linalg.norm(after[:, :LANDMARKS] - before, axis=2).mean() < 4  # a cell
    assert not learnt.model.training and learnt.model.head.weight.device.type == "cpu"


def test_the_pack_that_it_began_with_is_untouched(learnt, model, shared_core):
    fresh = with_maps(shared_core, [[row] for row in range(LANDMARKS)])
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_the_same_budget_of_steps_gives_the_same(model, dots):
    some = [part[:7] for part in dots]
    one, other = (learn_maps(model, *some, THIRDS, Learning(steps=2)) for _ in "ab")
    np.testing.assert_array_equal(one.left_out, other.left_out)


def test_missing_points_are_no_reason_to_fail(model, dots):
    crops, around, points = (part[:7] for part in dots)
    points = points.copy()
    points[:2, 0] = np.nan
    found = learn_maps(model, crops, around, points, THIRDS, Learning(steps=2))
    assert np.isfinite(found.left_out).all() and np.isfinite(found.fit.offset).all()


def test_maps_that_no_point_has_are_dropped(model):
    weight = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1.0]])
    torch.manual_seed(1)
    network = LandmarkNetwork(HourglassConfig(5, 16, SIZE)).eval()
    found = Learnt(network, Fit(weight, np.arange(6.0).reshape(3, 2), 1.0), np.zeros((4, 3, 2)), 3)
    kept = found.of_points([0, 2])
    assert kept.fit.weight.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0, 1]]
    assert kept.fit.offset.tolist() == [[0, 1], [4, 5]] and kept.left_out.shape == (4, 2, 2)
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(kept.model(image), network(image)[:, [0, 1, 2, 4]])


@pytest.mark.parametrize("budget", [{}, {"minutes": 0.0}, {"steps": 0}, {"minutes": -1.0}])
def test_a_budget_of_nothing(budget):
    with pytest.raises(UserError, match="--learn: got .*, expected a time over 0"):
        Learning(**budget)


def test_a_loss_that_is_no_number(model, dots):
    some = [part[:7] for part in dots]
    with pytest.raises(UserError, match="learning: got a loss of nan"):
        learn_maps(model, *some, THIRDS, Learning(steps=3, lr=float("nan")))


def test_objects_of_a_frame_are_left_out_together():
    frames = ["a", "b", "a", "c", "d", "b", "e"]
    assert [part.tolist() for part in left_out_parts(frames)] == [[0, 1, 2, 5], [3, 4], [6]]
    assert [part.tolist() for part in left_out_parts(["a", "a", "b"])] == [[0, 1], [2]]
