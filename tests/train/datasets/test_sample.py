"""Normalisers and mirror twins."""

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.train.datasets.sample import Normaliser, normalised_by, scheme_of

NAN = float("nan")
IBUG = tuple(f"p{i}" for i in range(68))


def array(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("names", "label", "pair"),
    [
        (("head", "l_shoulder", "r_hip"), "torso", (1, 2)),
        (("l_eye", "nose", "r_eye"), "inter-ocular", (0, 2)),
        (IBUG, "inter-ocular", (36, 45)),
        (("toe", "heel"), "box", None),
        (("l_eye", "nose"), "box", None),
        (("head", "thorax", "l_wing", "r_wing", "l_eye", "r_eye"), "box", None),  # a fly
        (("l_eye", "r_eye", "l_ear1", "r_ear1", "mouth_left"), "inter-ocular", (0, 1)),
        (("l_eye", "r_eye", "l_shoulder", "r_hip"), "torso", (2, 3)),
    ],
)
def test_which_length_errors_are_divided_by(names, label, pair):
    normaliser = scheme_of(names).normaliser
    assert (normaliser.label, normaliser.pair) == (label, pair)


def test_lengths_of_a_pair():
    lengths = scheme_of(("l_eye", "r_eye")).normaliser.lengths(
        array([[0, 0], [3, 4]], [[0, 0], [NAN, NAN]], [[2, 2], [2, 2]])
    )
    np.testing.assert_allclose(lengths, [5, NAN, NAN])


def test_lengths_of_a_box():
    lengths = scheme_of(("a", "b", "c")).normaliser.lengths(
        array(
            [[0, 0], [8, 1], [4, 2]],
            [[0, 0], [9, 4], [NAN, NAN]],
            [[0, 0], [NAN, NAN], [NAN, NAN]],
            [[0, 0], [5, 0], [9, 0]],
        )
    )
    np.testing.assert_allclose(lengths, [4, 6, NAN, NAN])


def test_images_without_points_have_no_length():
    lengths = scheme_of(()).normaliser.lengths(np.empty((2, 0, 2), np.float32))
    np.testing.assert_array_equal(lengths, [NAN, NAN])


def test_mirror_twins():
    assert scheme_of(("head", "l_eye", "r_eye")).flips == (0, 2, 1)
    assert scheme_of(("left_ear", "tail", "right_ear", "lip")).flips == (2, 1, 0, 3)
    assert scheme_of(("l_eye", "nose", "r_ear")).flips is None  # no twins
    assert scheme_of(("p0", "p1")).flips is None and scheme_of(()).flips is None


def test_flip_map_is_its_own_inverse():
    for names in (("r_hip", "l_hip", "neck", "l_knee", "r_knee"), IBUG):
        order = scheme_of(names).flips
        assert [order[i] for i in order] == list(range(len(names)))


def test_mirror_twins_of_68_points_lie_opposite():
    """On an upright, symmetric face a mirror image leaves every outline where it was."""
    flips = scheme_of(IBUG).flips
    assert (flips[36], flips[45], flips[48], flips[54]) == (45, 36, 54, 48)
    assert [i for i in range(68) if flips[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_lengths_that_come_with_the_images():
    points = np.zeros((3, 2, 2), np.float32)
    head = Normaliser("head", "sample")
    np.testing.assert_allclose(head.lengths(points, array(5, 0, NAN)), [5, NAN, NAN])
    assert np.isnan(head.lengths(points)).all()


def test_the_twin_of_an_ear_of_cat_is_the_other_ear_read_backwards():
    scheme = scheme_of(
        ("l_eye", "r_eye", "mouth", *(f"{s}_ear{i}" for s in "lr" for i in (1, 2, 3)))
    )
    assert scheme.flips == (1, 0, 2, 8, 7, 6, 5, 4, 3) and scheme.normaliser.pair == (0, 1)


def test_the_length_that_errors_are_divided_by_can_be_asked_for():
    scheme = scheme_of(("l_eye", "r_eye", "nose"))
    points = np.float32([[[0, 0], [3, 4], [3, 0]]])
    assert normalised_by(scheme, None) is scheme
    asked = normalised_by(scheme, "r_eye, nose")
    assert asked.normaliser.label == "r_eye to nose" and asked.flips == scheme.flips
    assert asked.normaliser.lengths(points) == [4]
    assert normalised_by(scheme, "box").normaliser.lengths(points)[0] == pytest.approx(12**0.5)
    for wrong in ("tail", "nose,nose", "nose,tail"):
        with pytest.raises(UserError, match=f"--normaliser: got '{wrong}', expected box or two"):
            normalised_by(scheme, wrong)
