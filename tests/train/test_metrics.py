"""Normalisers, mirror twins and PCK."""

import numpy as np
import pytest

from lmk.train.metrics import flip_map, normaliser_for, pck

NAN = float("nan")


def array(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("names", "label", "pair"),
    [
        (("head", "l_shoulder", "r_hip"), "torso", (1, 2)),
        (("l_eye", "nose", "r_eye"), "inter-ocular", (0, 2)),
        (tuple(f"p{i}" for i in range(68)), "inter-ocular", (36, 45)),
        (("toe", "heel"), "box", None),
        (("l_eye", "nose"), "box", None),
        (("l_eye", "r_eye", "l_shoulder", "r_hip"), "torso", (2, 3)),
    ],
)
def test_which_length_errors_are_divided_by(names, label, pair):
    normaliser = normaliser_for(names)
    assert (normaliser.label, normaliser.pair) == (label, pair)


def test_lengths_of_a_pair():
    lengths = normaliser_for(("l_eye", "r_eye")).lengths(
        array([[0, 0], [3, 4]], [[0, 0], [NAN, NAN]], [[2, 2], [2, 2]])
    )
    np.testing.assert_allclose(lengths, [5, NAN, NAN])


def test_lengths_of_a_box():
    lengths = normaliser_for(("a", "b", "c")).lengths(
        array(
            [[0, 0], [8, 1], [4, 2]],
            [[0, 0], [9, 4], [NAN, NAN]],
            [[0, 0], [NAN, NAN], [NAN, NAN]],
            [[0, 0], [5, 0], [9, 0]],
        )
    )
    np.testing.assert_allclose(lengths, [4, 6, NAN, NAN])


def test_mirror_twins():
    assert flip_map(("head", "l_eye", "r_eye")) == [0, 2, 1]
    assert flip_map(("left_ear", "tail", "right_ear", "lip")) == [2, 1, 0, 3]
    assert flip_map(("l_eye", "nose", "r_ear")) is None  # no twins
    assert flip_map(("p0", "p1")) is None and flip_map(()) is None


def test_flip_map_is_its_own_inverse():
    order = flip_map(("r_hip", "l_hip", "neck", "l_knee", "r_knee"))
    assert [order[i] for i in order] == list(range(5))


def test_pck():
    truth = array([[0, 0], [10, 0]], [[0, 0], [NAN, NAN]], [[5, 5], [6, 6]])
    found = array([[1.9, 0], [12.1, 0]], [[0, 3], [1, 1]], [[5, 5], [6, 6]])
    overall, each = pck(found, truth, array(10, 10, NAN))
    # Known: first image (right, wrong), second (wrong, missing), third has no length.
    assert overall == pytest.approx(1 / 3)
    np.testing.assert_allclose(each, [0.5, 0.0])
    assert pck(found, truth, array(20, 20, 20))[0] == 1.0


def test_pck_of_nothing():
    nothing = np.full((2, 3, 2), NAN, np.float32)
    assert pck(nothing, nothing, array(1, 1))[0] == 0.0
