"""The hourglass: the parameters of the paper, the sizes of its maps."""

import pytest
import torch

from lmk.train.hourglass import WIDTHS, HourglassConfig, LandmarkNetwork


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("landmarks", "expected"), [(10, 6_234_762), (16, 6_236_304), (68, 6_249_668)]
)
def test_parameters_of_the_full_network(landmarks, expected):
    assert count(LandmarkNetwork(HourglassConfig(landmarks))) == expected


def test_the_small_preset_has_about_0_4_million(monkeypatch):
    monkeypatch.undo()  # the fixture that makes "small" tiny
    assert WIDTHS == {"full": 256, "medium": 128, "small": 64}
    assert 350_000 < count(LandmarkNetwork(HourglassConfig(10, WIDTHS["small"]))) < 450_000


@pytest.mark.parametrize("size", [64, 128, 192])
def test_maps_are_a_quarter(size):
    config = HourglassConfig(3, 16, size)
    model = LandmarkNetwork(config)
    images = torch.rand(2, 3, size, size)
    assert model(images).shape == (2, 3, size // 4, size // 4)
    assert config.heatmap_size == size // 4


def test_features_at_strides_2_4_4(core):
    shapes = [tuple(f.shape) for f in core.features(torch.rand(2, 3, 64, 64))]
    assert shapes == [(2, 8, 32, 32), (2, 8, 16, 16), (2, 16, 16, 16)]


def test_maps_see_the_whole_image(core):
    """A change in one corner reaches the maps in the opposite one, through the hourglass."""
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    core(images)[0, 0, 15, 15].backward()
    assert images.grad[0, :, :4, :4].abs().max() > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_landmarks": 0}, "num_landmarks: got 0, expected 1 or more"),
        ({"width": 24}, "width: got 24, expected a multiple of 16"),
        ({"width": 0}, "width: got 0"),
        ({"input_size": 100}, "input_size: got 100, expected a multiple of 64"),
        ({"input_size": 0}, "input_size: got 0"),
    ],
)
def test_impossible_networks(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        HourglassConfig(**options)
