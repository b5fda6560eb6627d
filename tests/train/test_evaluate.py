"""The three measures on detectors whose answers are known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lmk.runtime.errors import UserError
from lmk.train.bottleneck import BETA
from lmk.train.config import EvaluateConfig
from lmk.train.datasets.decoded import DecodedSet
from lmk.train.datasets.scheme import NO_SCHEME, scheme_of
from lmk.train.evaluate import LinearRegressor, evaluate, find_landmarks
from lmk.train.hourglass import HourglassConfig

SOURCE, SIZE, COUNT = 80, 64, 30
NAMES = ("l_eye", "r_eye", "nose")


class Fake(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = HourglassConfig(3, 16, SIZE)
        self.device_of = nn.Parameter(torch.zeros(1))


class Perfect(Fake):
    """Finds the middle of the red, the green and the blue spot."""

    def forward(self, images):
        pooled = nn.functional.avg_pool2d(images, 4)
        return torch.log(pooled + 1e-12) / BETA


class Constant(Fake):
    """Sees nothing; `cells` (K,2) is all it ever says."""

    def __init__(self, *cells):
        super().__init__()
        self.maps = torch.full((3, 16, 16), -10.0)
        for one, (x, y) in zip(self.maps, cells, strict=True):
            one[y, x] = 10.0

    def forward(self, images):
        return self.maps.expand(len(images), 3, 16, 16)


APART = Constant((3, 3), (12, 3), (8, 12))
BLOB = Constant((8, 8), (8, 8), (7, 8))


@pytest.fixture(scope="module")
def spots():
    """Images of a red, a green and a blue spot, whose middles are the annotated points."""
    rng = np.random.default_rng(0)
    nominal = np.array([[30, 32], [50, 32], [40, 48]], np.float32)
    points = (nominal + rng.uniform(-5, 5, (COUNT, 3, 2))).astype(np.float32)
    steps = np.arange(SOURCE)
    across = np.exp(-((steps - points[..., :1]) ** 2) / 8)  # (N,3,S)
    down = np.exp(-((steps - points[..., 1:]) ** 2) / 8)
    images = np.einsum("nky,nkx->nyxk", down, across)
    return DecodedSet(
        name="spots",
        images=(images * 255).round().astype(np.uint8),
        points=points,
        names=tuple(f"{i}.png" for i in range(COUNT)),
        splits=("train",) * 20 + ("test",) * 10,
        scheme=scheme_of(NAMES),
        lengths=np.full(COUNT, np.nan, np.float32),
        skipped=(),
        crop_scale=1.0,
    )


def measure(model, data, **options):
    return evaluate(model.eval(), data, EvaluateConfig(**options))


def test_a_perfect_detector(spots):
    report = measure(Perfect(), spots)
    assert report["consistency_px"] < 0.1
    assert report["forward_percent"] < 0.5 and report["backward_percent"] < 0.5
    assert report["forward_mean_shape_percent"] > 10  # ± 5 pixels of about 20
    assert not report["collapsed"] and report["spread_px"] > 8
    assert (report["test_images"], report["regressor_images"]) == (10, 20)
    assert report["normaliser"] == "inter-ocular" and report["data"] == "spots"
    json.dumps(report, allow_nan=False)


def test_errors_are_in_percent_of_the_normaliser(spots):
    """Twice the distance between the eyes, half the percentage of the same mean shape."""
    wide = spots.points.copy()
    wide[:, 1, 0] += 20.0
    near = measure(APART, spots)["forward_mean_shape_percent"]
    far = measure(APART, replace(spots, points=wide))["forward_mean_shape_percent"]
    assert far == pytest.approx(near / 2, rel=0.1)


def test_the_mean_shape_by_hand(spots):
    truth = spots.points[20:]
    lengths = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)
    errors = np.linalg.norm(truth - spots.points[:20].mean(axis=0), axis=2).mean(axis=1)
    expected = 100 * (errors / lengths).mean()
    report = measure(Perfect(), spots)
    assert report["forward_mean_shape_percent"] == pytest.approx(expected, rel=1e-4)


def test_a_constant_detector_is_the_mean_shape(spots):
    report = measure(APART, spots)
    assert report["forward_percent"] == pytest.approx(
        report["forward_mean_shape_percent"], rel=1e-3
    )
    assert report["backward_percent"] < 0.1  # which is why it is never quoted alone
    assert report["consistency_px"] > 2  # the image moves and the landmarks do not
    assert not report["collapsed"]


def test_a_collapsed_detector_is_told(spots):
    report = measure(BLOB, spots)
    assert report["collapsed"] and report["spread_px"] == pytest.approx(
        4 * math.sqrt(2 / 9), abs=1e-3
    )


def test_consistency_is_ascending_and_seeded(spots):
    report = measure(APART, spots)
    each = report["consistency_px_each"]
    assert each == sorted(each) and len(each) == 3
    assert report["consistency_px"] == pytest.approx(sum(each) / 3)
    assert measure(APART, spots)["consistency_px"] == report["consistency_px"]
    assert measure(APART, spots, seed=1)["consistency_px"] != report["consistency_px"]


def test_without_a_transform_everything_is_consistent(spots):
    report = measure(APART, spots, rotation=0.0, scale=0.0, shift=0.0)
    assert report["consistency_px"] == pytest.approx(0, abs=1e-4)


def test_unlabelled_data_has_no_regression(spots):
    report = measure(Perfect(), replace(spots, scheme=NO_SCHEME, points=spots.points[:, :0]))
    assert "forward_percent" not in report and report["consistency_px"] < 0.1


def test_at_most_so_many_images(spots):
    assert measure(Perfect(), spots, images=4)["test_images"] == 4


def test_images_with_a_missing_point_do_not_count(spots):
    points = spots.points.copy()
    points[:5, 2], points[20:23, 0] = np.nan, np.nan
    report = measure(Perfect(), replace(spots, points=points))
    assert (report["regressor_images"], report["regressor_test_images"]) == (15, 7)
    assert report["forward_percent"] < 0.5


def test_no_image_that_was_held_out(spots):
    one = replace(spots, images=spots.images[:1], points=spots.points[:1], splits=("",))
    with pytest.raises(UserError, match="spots: got no image to evaluate on, expected 2 or more"):
        measure(Perfect(), one)


def test_too_few_whole_annotations(spots):
    points = spots.points.copy()
    points[1:20, 0] = np.nan
    with pytest.raises(UserError, match="got 1 training and 10 test images"):
        measure(Perfect(), replace(spots, points=points))


def test_find_landmarks_in_pixels_of_the_crop(spots):
    found = find_landmarks(Perfect().eval(), spots, np.arange(7), batch=3)
    np.testing.assert_allclose(found, spots.crop_points(np.arange(7), SIZE), atol=0.05)


def test_linear_regressor_is_exact_on_linear_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4, 2)).astype(np.float32) * 10 + 30
    mixing, bias = rng.normal(size=(8, 6)), rng.normal(size=6)

    def target(x):
        return (x.reshape(len(x), 8) @ mixing + bias).reshape(len(x), 3, 2).astype(np.float32)

    fresh = rng.normal(size=(10, 4, 2)).astype(np.float32) * 10 + 30
    predicted = LinearRegressor(x, target(x), ridge=1e-10)(fresh)
    assert predicted.shape == (10, 3, 2) and predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, target(fresh), atol=1e-3)


def test_linear_regressor_penalty_draws_to_the_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 1, 2)).astype(np.float32)
    strong, weak = (LinearRegressor(x, 3 * x + 7, ridge)(x) for ridge in (1e6, 1e-10))
    np.testing.assert_allclose(strong, np.broadcast_to((3 * x + 7).mean(0), x.shape), atol=1e-3)
    np.testing.assert_allclose(weak, 3 * x + 7, atol=1e-3)


def test_linear_regressor_of_constants():
    x, y = np.ones((5, 2, 2), np.float32), np.full((5, 3, 2), 4.0, np.float32)
    np.testing.assert_allclose(LinearRegressor(x, y, 1e-4)(x * 9), np.full((5, 3, 2), 4.0))
