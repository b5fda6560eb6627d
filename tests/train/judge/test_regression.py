"""Linear regressors between sets of points, the protocol around them, and PCK."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from lmk.runtime.errors import UserError
from lmk.train.config import EvaluateConfig
from lmk.train.judge.regression import (
    SIZES,
    THRESHOLDS,
    LinearRegressor,
    cumulative,
    errors_percent,
    images_needed,
    pck,
    regress,
    subsets,
)

NAN = float("nan")
seeds = st.integers(0, 2**32 - 1)


def random_points(seed, images=60, points=4):
    rng = np.random.default_rng(seed)
    return rng.normal(30, 10, (images, points, 2)).astype(np.float32)


def affine(x, seed, points=3, offset=True):
    """Points that are an exact affine map of others."""
    rng = np.random.default_rng((seed, 1))
    mixing = rng.uniform(-1, 1, (x[0].size, 2 * points))
    shift = rng.uniform(-20, 20, 2 * points) * offset
    return (x.reshape(len(x), -1) @ mixing + shift).reshape(len(x), points, 2).astype(np.float32)


@given(seed=seeds, ridge=st.sampled_from([0.0, 1e-10]), bias=st.booleans())
def test_exact_on_affine_data(seed, ridge, bias):
    x = random_points(seed)
    y = affine(x, seed, offset=bias)
    predicted = LinearRegressor(x[:40], y[:40], ridge, bias)(x[40:])
    assert predicted.shape == (20, 3, 2) and predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, y[40:], atol=2e-2)


def test_without_a_constant_term_the_origin_stays():
    x = random_points(0)
    y = affine(x, 0)
    origin = np.zeros((1, 4, 2), np.float32)
    assert not LinearRegressor(x, y, 1e-4, bias=False)(origin).any()
    assert np.abs(LinearRegressor(x, y, 1e-4)(origin)).max() > 1


@settings(max_examples=25)
@given(
    seed=seeds,
    scale=st.floats(0.1, 10),
    shift=st.tuples(st.floats(-99, 99), st.floats(-99, 99)),
)
def test_errors_do_not_depend_on_units_or_origin(seed, scale, shift):
    x = random_points(seed)
    y = (affine(x, seed) + np.random.default_rng(seed).normal(0, 3, (60, 3, 2))).astype(np.float32)
    length = np.full(20, 30.0, np.float32)

    def error(x, y, length):
        fitted = LinearRegressor(x[:40], y[:40], ridge=1e-4)
        return errors_percent(fitted(x[40:]), y[40:], length).mean()

    moved = [(p * scale + np.array(shift)).astype(np.float32) for p in (x, y)]
    assert error(*moved, length * scale) == pytest.approx(error(x, y, length), rel=1e-2)


def test_the_penalty_draws_to_the_mean():
    x = random_points(0, points=1)
    strong, weak = (LinearRegressor(x, 3 * x + 7, ridge)(x) for ridge in (1e6, 1e-10))
    np.testing.assert_allclose(strong, np.broadcast_to((3 * x + 7).mean(0), x.shape), atol=1e-3)
    np.testing.assert_allclose(weak, 3 * x + 7, atol=1e-3)


def test_the_penalty_is_that_of_the_formula():
    """R = Y'X (X'X + r·max(X'X)·I)⁻¹ of centred points (method-facts, section 8)."""
    x, y = random_points(0), random_points(1, points=3)
    a, b = (p.reshape(60, -1).astype(float) for p in (x - x.mean(axis=0), y - y.mean(axis=0)))
    gram = a.T @ a
    weights = np.linalg.inv(gram + 0.01 * gram.max() * np.eye(8)) @ a.T @ b
    np.testing.assert_allclose(LinearRegressor(x, y, 0.01).weight, weights, atol=1e-4)


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_points_that_never_move_give_the_mean(ridge):
    x, y = np.ones((9, 2, 2), np.float32), random_points(0, images=9, points=3)
    predicted = LinearRegressor(x, y, ridge)(x)
    np.testing.assert_allclose(predicted, np.broadcast_to(y.mean(axis=0), y.shape), atol=1e-5)


@pytest.mark.parametrize(("bias", "needed"), [(True, 9), (False, 8)])
def test_too_few_images_are_refused_unless_ridge(bias, needed):
    x, y = random_points(0, images=needed), random_points(1, images=needed, points=3)
    assert images_needed(4, 0.0, bias) == needed and images_needed(4, 1e-9, bias) == 1
    fitted = LinearRegressor(x, y, 0.0, bias)
    np.testing.assert_allclose(fitted(x), y, atol=1e-2)  # as many unknowns as equations
    message = f"from 4 points: got {needed - 1} training images, expected {needed} or more"
    with pytest.raises(UserError, match=message) as caught:
        LinearRegressor(x[1:], y[1:], 0.0, bias)
    assert "--ridge over 0" in str(caught.value)
    assert np.isfinite(LinearRegressor(x[1:], y[1:], 1e-4, bias)(x)).all()


def test_errors_are_in_percent_of_the_length():
    truth = np.zeros((2, 2, 2), np.float32)
    predicted = truth.copy()
    predicted[0, 0] = 3, 4  # one point of the two is 5 off
    np.testing.assert_allclose(errors_percent(predicted, truth, np.float32([50, 10])), [5, 0])


def test_curves_count_images():
    shares = cumulative(np.float32([0.0, 10.0, 10.5, 999]))
    assert len(shares) == len(THRESHOLDS)
    at = dict(zip(THRESHOLDS, shares, strict=True))
    assert (at[0], at[9], at[10], at[11], at[50]) == (0.25, 0.25, 0.5, 0.75, 0.75)


@pytest.fixture(scope="module")
def noisy():
    """700 pairs of points and what is nearly an affine map of them; the last 100 are for tests."""
    x = random_points(0, images=700)
    y = affine(x, 0) + np.random.default_rng(0).normal(0, 3, (700, 3, 2)).astype(np.float32)
    return (x[:600], y[:600]), (x[600:], y[600:]), np.full(100, 30.0, np.float32)


def test_regress_over_numbers_of_images(noisy):
    report = regress("forward", *noisy, EvaluateConfig())
    rows = report["forward_by_images"]
    assert [row["images"] for row in rows] == [1, 5, 10, 100, 500, 600]
    assert [row["repeats"] for row in rows] == [10] * 5 + [1]
    means = [row["mean_percent"] for row in rows]
    assert means[0] > means[3] > means[4] and means[-1] == report["forward_percent"]
    assert all(row["std_percent"] > 0 for row in rows[:-1]) and rows[-1]["std_percent"] == 0
    assert rows[0]["mean_percent"] == pytest.approx(rows[0]["mean_shape_percent"])  # 1 image
    assert rows[-1]["mean_shape_percent"] == report["forward_mean_shape_percent"]
    curve = report["forward_curve"]
    assert curve["share"][0] < 0.1 and curve["share"][-1] > curve["mean_shape_share"][-1]


def test_only_solvable_numbers_of_images_without_ridge(noisy):
    report = regress("forward", *noisy, EvaluateConfig(ridge=0.0))
    assert [row["images"] for row in report["forward_by_images"]] == [10, 100, 500, 600]
    assert report["forward_images_needed"] == 9


def test_fewer_images_than_unknowns(noisy):
    (x, y), test, lengths = noisy
    with pytest.raises(UserError, match="got 8 training images, expected 9 or more"):
        regress("forward", (x[:8], y[:8]), test, lengths, EvaluateConfig(ridge=0.0))


def test_subsets_are_seeded_and_as_large_as_said():
    """n means n: the authors' code takes one more."""
    config = EvaluateConfig(repeats=3)
    for size in (s for s in SIZES if s < 600):
        chosen = subsets(600, size, config)
        assert [len(set(some.tolist())) for some in chosen] == [size] * 3
        again, other = subsets(600, size, config), subsets(600, size, EvaluateConfig(seed=1))
        assert all(np.array_equal(a, b) for a, b in zip(chosen, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(chosen, other, strict=False))
    assert len(subsets(600, 5, EvaluateConfig())) == 10


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
