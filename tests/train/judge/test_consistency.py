"""Landmarks of views: where they are found, where they belong, and what moves with the image."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from lmk.runtime.errors import UserError
from lmk.train import augment
from lmk.train.config import EvaluateConfig
from lmk.train.judge.consistency import (
    consistency_errors,
    find_landmarks,
    following,
    moved,
    prepared,
    righted,
    transforms,
    views,
)

SIZE = 64
EVERY = np.arange(8)


def test_landmarks_are_in_pixels_of_the_crop(spots, detectors):
    found = find_landmarks(detectors.Perfect().eval(), spots, EVERY, batch=3)
    np.testing.assert_allclose(found, spots.crop_points(EVERY, SIZE), atol=0.05)


def test_the_first_view_changes_nothing(spots, detectors):
    seen = views(detectors.Perfect(), spots, EVERY, EvaluateConfig(), views=2)
    assert seen.images.shape == (3, 8, SIZE, SIZE, 3) and seen.images.dtype == np.uint8
    assert seen.found.shape == seen.expected.shape == (3, 8, 3, 2)
    np.testing.assert_array_equal(seen.images[0], spots.images[EVERY, 8:-8, 8:-8])
    np.testing.assert_array_equal(seen.found[0], seen.expected[0])
    assert not np.array_equal(seen.images[1], seen.images[2])


def test_a_cut_is_the_warp_that_changes_nothing(spots, detectors):
    seen = find_landmarks(detectors.Perfect().eval(), spots, EVERY)
    warped = find_landmarks(
        detectors.Perfect().eval(), spots, EVERY, moves=torch.eye(3).expand(8, 3, 3)
    )
    np.testing.assert_allclose(seen, warped, atol=1e-3)


def test_views_show_what_they_say(spots, detectors):
    """The brightest pixel of each colour is where the landmark is expected."""
    seen = views(
        detectors.Perfect(), spots, EVERY, EvaluateConfig(rotation=40.0, shift=0.0), views=1
    )
    flat = seen.images[1].reshape(8, -1, 3).argmax(axis=1)
    brightest = np.stack((flat % SIZE, flat // SIZE), axis=2)
    assert np.abs(brightest - seen.expected[1]).max() < 1.6


def test_objects_are_turned_alike_and_most_heads_up(spots, detectors):
    turns = augment.turns(torch.linspace(0, 5, 8), spots.images.shape[1])
    once = torch.from_numpy(spots.images[:1]).permute(0, 3, 1, 2).float()
    images = augment.warp(once.expand(8, -1, -1, -1), turns, once.shape[-1])
    headings = np.linspace(0, 5, 8, dtype=np.float32) + 1  # a heading goes with its object
    headings[3] += np.pi  # and may be wrong
    headings[5] = np.nan
    turned = replace(
        spots, images=images.round().byte().permute(0, 2, 3, 1).numpy(), headings=headings
    )
    seen = righted(detectors.Perfect(), turned, EVERY, EvaluateConfig())
    assert np.abs(seen.found[1] - seen.found[1][0]).max() < 1
    there = seen.found[1] - seen.found[1].mean(axis=1, keepdims=True)
    before = seen.found[0] - seen.found[0].mean(axis=1, keepdims=True)
    angle = np.angle((there[0] @ [1, 1j]) / (before[0] @ [1, 1j])).mean()
    assert headings[0] + angle == pytest.approx(-np.pi / 2, abs=0.05)  # up


@settings(max_examples=10)
@given(
    rotation=st.floats(0, 30),
    scale=st.floats(0, 0.2),
    shift=st.floats(0, 0.05),
    seed=st.integers(0, 2**31),
)
def test_a_perfect_detector_is_consistent(spots, detectors, rotation, scale, shift, seed):
    config = EvaluateConfig(rotation=rotation, scale=scale, shift=shift, seed=seed)
    seen = views(detectors.Perfect(), spots, EVERY, config)
    assert np.nanmax(seen.errors[1]) < 0.35 and not seen.errors[0].any()


def test_transforms_depend_on_image_and_seed_alone():
    config = EvaluateConfig()
    every = transforms(EVERY, SIZE, config)
    torch.testing.assert_close(transforms(EVERY[3:5], SIZE, config), every[3:5], rtol=0, atol=0)
    other = EvaluateConfig(batch=3, batch_norm="batch", ridge=0.0)
    torch.testing.assert_close(transforms(EVERY, SIZE, other), every, rtol=0, atol=0)
    assert not torch.equal(transforms(EVERY, SIZE, EvaluateConfig(seed=1)), every)
    assert not torch.equal(transforms(EVERY, SIZE, config, view=2), every)
    assert transforms(EVERY, SIZE, config, view=0) is None


def test_transforms_of_neighbours_differ():
    """Their seeds do so by one."""
    shifts = transforms(np.arange(200), SIZE, EvaluateConfig(rotation=0, scale=0))[:, 0, 2]
    limit = 0.05 * SIZE
    assert shifts.min() < -0.9 * limit and shifts.max() > 0.9 * limit
    assert abs(shifts.mean()) < 0.2 * limit
    assert abs(np.corrcoef(shifts[:-1], shifts[1:])[0, 1]) < 0.2


def test_the_batch_does_not_matter(spots, detectors):
    config = EvaluateConfig(batch=3)
    np.testing.assert_allclose(
        views(detectors.Perfect(), spots, EVERY, config).found,
        views(detectors.Perfect(), spots, EVERY, EvaluateConfig()).found,
        atol=1e-4,
    )


def test_moved_undoes_what_the_warp_does():
    points = np.random.default_rng(0).uniform(0, SIZE, (8, 3, 2)).astype(np.float32)
    moves = transforms(EVERY, SIZE, EvaluateConfig())
    there = moved(points, moves)
    back = augment.move_points(torch.from_numpy(there), moves).numpy()
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_what_is_out_of_sight_has_no_error():
    expected = np.array([[[-0.6, 5], [0, 63.4], [3, 63.6]]], np.float32)
    errors = consistency_errors(expected + np.float32([3, 4]), expected, 64)
    np.testing.assert_allclose(errors, [[np.nan, 5, np.nan]])


@given(step=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_following_is_the_share_of_the_way(step, seed):
    rng = np.random.default_rng(seed)
    still, expected = rng.uniform(0, 64, (2, 5, 3, 2)).astype(np.float32)
    assert following(still, still + step * (expected - still), expected) == pytest.approx(
        step, abs=1e-5
    )


def test_nothing_to_follow():
    still = np.zeros((5, 3, 2), np.float32)
    assert following(still, still + 1, still) is None


@pytest.fixture(scope="session")
def normalised(detectors):
    """Its heat-maps are normalised images."""

    class Normalised(detectors.Perfect):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, images):
            return self.norm(torch.nn.functional.avg_pool2d(images, 4))

    return Normalised()


def test_batch_norm_is_of_the_batch_if_asked_and_the_model_stays(spots, normalised):
    model = normalised.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learnt, batch, halves = (
        views(model, spots, EVERY, EvaluateConfig(batch_norm=mode, batch=size)).found
        for mode, size in (("eval", 8), ("batch", 8), ("batch", 4))
    )
    assert np.abs(learnt - batch).max() > 0.1 and np.abs(halves - batch).max() > 1e-3
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_lone_image_has_no_batch_statistics(spots, normalised):
    config = EvaluateConfig(batch_norm="batch")
    with pytest.raises(UserError, match=r"--batch-norm batch: got 1 image, expected 2 or more"):
        views(normalised, spots, EVERY[:1], config)


def test_no_batch_is_left_with_a_lone_image(spots, normalised):
    config = EvaluateConfig(batch_norm="batch", batch=7)
    assert np.isfinite(views(normalised, spots, EVERY, config).found).all()


def test_a_device_that_is_not_there(detectors, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: no usable CUDA device"):
        prepared(detectors.Perfect(), EvaluateConfig(device="cuda"))
