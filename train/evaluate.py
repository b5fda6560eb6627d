"""Adapted network and data -> how good its landmarks are: the paper's three measures (sec. 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.train import augment
from lmk.train.bottleneck import soft_argmax
from lmk.train.config import EvaluateConfig
from lmk.train.datasets.decoded import DecodedSet
from lmk.train.device import to_float
from lmk.train.hourglass import LandmarkNetwork
from lmk.train.run import generator
from lmk.train.split import split_indices

Points = NDArray[np.float32]
IDENTITY = torch.eye(3)[None]  # the transform that changes nothing
COLLAPSED_SPREAD = 6.0  # pixels: under it the landmarks sit on one blob and mean nothing


def evaluate(
    model: LandmarkNetwork, data: DecodedSet, config: EvaluateConfig, split_seed: int = 0
) -> dict[str, Any]:
    """Measure `model` (eval mode) on the images of `data` that were held out.

    consistency: mean |Δ| in pixels of the crop between the landmarks of a transformed image and
    the transformed landmarks, per landmark, ascending. forward, backward (with annotated points
    only): error in % of the normaliser of a linear regressor from found to annotated points and
    back, fitted on the training images, beside that of the mean shape. spread: rms distance in
    pixels of the landmarks from their centre; small means collapsed, and nothing else counts.
    Raises UserError for too few images.
    """
    train, test = split_indices(data.splits, split_seed)
    test = test[: config.images]
    if len(test) < 1:
        raise UserError(f"{data.name}: got no image to evaluate on, expected 2 or more images")
    found, errors = _found_and_errors(model, data, test, config)
    spread = float(np.sqrt(((found - found.mean(1, keepdims=True)) ** 2).sum(2).mean()))
    each = np.sort(np.nanmean(errors, axis=0))
    report: dict[str, Any] = {
        "data": data.name,
        "test_images": len(test),
        "consistency_px": float(each.mean()),
        "consistency_px_each": [float(v) for v in each],
        "spread_px": spread,
        "collapsed": spread < COLLAPSED_SPREAD,
    }
    if data.landmark_names:
        report |= _regressions(model, data, train, test, found, config)
    return report


def _regressions(
    model: LandmarkNetwork,
    data: DecodedSet,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    found: Points,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Forward and backward errors in % of the normaliser, the mean shape's beside them."""
    size = model.config.input_size
    normaliser = data.scheme.normaliser
    truth_train, truth_test = (data.crop_points(part, size) for part in (train, test))
    whole_train = np.isfinite(truth_train).all(axis=(1, 2))
    whole_test = np.isfinite(truth_test).all(axis=(1, 2))
    if whole_train.sum() < 2 or not whole_test.any():
        raise UserError(
            f"{data.name}: got {whole_train.sum()} training and {whole_test.sum()} test images "
            "with every point annotated, expected at least 2 and 1; annotate more"
        )
    found_train = find_landmarks(model, data, train[whole_train], config.batch)
    pairs = {
        "forward": (
            found_train,
            truth_train[whole_train],
            found[whole_test],
            truth_test[whole_test],
        ),
        "backward": (
            truth_train[whole_train],
            found_train,
            truth_test[whole_test],
            found[whole_test],
        ),
    }
    lengths = normaliser.lengths(truth_test[whole_test], data.lengths[test][whole_test])
    report: dict[str, Any] = {
        "normaliser": normaliser.label,
        "regressor_images": int(whole_train.sum()),
        "regressor_test_images": int(whole_test.sum()),
    }
    for name, (x, y, x_test, y_test) in pairs.items():
        predicted = LinearRegressor(x, y, config.ridge)(x_test)
        mean_shape = np.broadcast_to(y.mean(axis=0), y_test.shape)
        report[f"{name}_percent"] = _percent(predicted, y_test, lengths)
        report[f"{name}_mean_shape_percent"] = _percent(mean_shape, y_test, lengths)
    return report


def _percent(predicted: Points, truth: Points, lengths: Points) -> float:
    errors = np.linalg.norm(predicted - truth, axis=2).mean(axis=1) / lengths
    return float(np.nanmean(errors) * 100)


class LinearRegressor:
    """Ridge regression with bias from points (N,P,2) to points (N,Q,2)."""

    def __init__(self, x: Points, y: Points, ridge: float) -> None:
        self.shape = y.shape[1:]
        self.x_mean, self.y_mean = x.mean(axis=0), y.mean(axis=0)
        a = (x - self.x_mean).reshape(len(x), -1).astype(np.float64)
        b = (y - self.y_mean).reshape(len(y), -1).astype(np.float64)
        gram = a.T @ a
        gram += np.eye(len(gram)) * (ridge * max(float(gram.max()), 1e-12))
        self.weight = np.linalg.solve(gram, a.T @ b)

    def __call__(self, x: Points) -> Points:
        flat = (x - self.x_mean).reshape(len(x), -1) @ self.weight
        return (flat.reshape(len(x), *self.shape) + self.y_mean).astype(np.float32)


@torch.no_grad()
def find_landmarks(
    model: LandmarkNetwork, data: DecodedSet, indices: NDArray[np.intp], batch: int = 32
) -> Points:
    """Landmarks (N,K,2) in pixels of the central crops, batch-norm in eval mode."""
    identity = torch.eye(3)
    parts = torch.from_numpy(indices).split(batch)
    return np.concatenate(
        [_locate(model, data, part, identity.expand(len(part), 3, 3)) for part in parts]
    )


def _locate(
    model: LandmarkNetwork, data: DecodedSet, chosen: torch.Tensor, transforms: torch.Tensor
) -> Points:
    """Landmarks of crops that are seen through `transforms`, as `augment` has them."""
    device = next(model.parameters()).device
    size, source = model.config.input_size, data.images.shape[1]
    images = to_float(torch.from_numpy(data.images), chosen, device)
    matrices = augment.centred(len(chosen), source, size) @ transforms
    points = soft_argmax(model(augment.warp(images, matrices, size)))
    return augment.to_pixels(points).cpu().numpy()


@torch.no_grad()
def _found_and_errors(
    model: LandmarkNetwork, data: DecodedSet, indices: NDArray[np.intp], config: EvaluateConfig
) -> tuple[Points, Points]:
    """Landmarks (N,K,2) and their consistency errors (N,K) in pixels, NaN where out of sight."""
    size = model.config.input_size
    spec = augment.Similarity(config.rotation, config.scale, config.shift)
    found, errors = [], []
    for number, part in enumerate(torch.from_numpy(indices).split(config.batch)):
        draw = generator(config.seed, 3, number)
        transforms = augment.random_similarity(len(part), size, size, spec, draw)
        still = _locate(model, data, part, IDENTITY)
        moved = _locate(model, data, part, transforms)
        inverse = torch.linalg.inv(transforms)
        expected = augment.move_points(torch.from_numpy(still), inverse).numpy()
        inside = ((expected > -0.5) & (expected < size - 0.5)).all(axis=2)
        error = np.linalg.norm(moved - expected, axis=2)
        found.append(still)
        errors.append(np.where(inside, error, np.nan))
    return np.concatenate(found), np.concatenate(errors)
