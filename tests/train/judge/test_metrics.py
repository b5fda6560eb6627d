"""PCK."""

import numpy as np
import pytest

from lmk.train.judge.regression import pck

NAN = float("nan")


def array(*values):
    return np.array(values, np.float32)


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
