"""The hourglass: the parameters of the paper, the sizes of its maps."""

import pytest
import torch

from lmk.train.network.hourglass import WIDTHS, Block, Hourglass, HourglassConfig, LandmarkNetwork


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("landmarks", "expected"), [(10, 6_234_762), (16, 6_236_304), (68, 6_249_668)]
)
def test_parameters_of_the_full_network(landmarks, expected):
    assert count(LandmarkNetwork(HourglassConfig(landmarks))) == expected


def test_the_small_preset_has_about_0_4_million(monkeypatch):
    monkeypatch.undo()  # the fixture that makes "small" tiny
    assert WIDTHS == {"full": 256, "medium": 128, "small": 64, "tiny": 48}
    assert 350_000 < count(LandmarkNetwork(HourglassConfig(10, WIDTHS["small"]))) < 450_000


@pytest.mark.parametrize("size", [64, 128, 192])
def test_maps_are_a_quarter(size):
    model = LandmarkNetwork(HourglassConfig(3, 16, size))
    images = torch.rand(2, 3, size, size)
    assert model(images).shape == (2, 3, size // 4, size // 4)


def test_features_at_strides_2_4_4(core):
    shapes = [tuple(f.shape) for f in core.features(torch.rand(2, 3, 64, 64))]
    assert shapes == [(2, 8, 32, 32), (2, 8, 16, 16), (2, 16, 16, 16)]


def test_maps_see_the_whole_image(core):
    """A change in one corner reaches the maps in the opposite one, through the hourglass."""
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    core(images)[0, 0, 15, 15].backward()
    assert images.grad[0, :, :4, :4].abs().max() > 0


def test_a_level_averages_goes_down_and_up_and_adds_its_skip():
    torch.manual_seed(0)
    level, x = Hourglass(1, 16).eval(), torch.randn(2, 16, 8, 8)
    means = x.view(2, 16, 4, 2, 4, 2).mean(dim=(3, 5))
    low = level.up(level.inner(level.down(means)))
    doubled = low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(level(x), level.skip(x) + doubled, rtol=1e-4, atol=1e-5)


def test_without_blocks_on_its_skips_a_level_adds_what_came():
    torch.manual_seed(0)
    network = LandmarkNetwork(HourglassConfig(3, 16, 64, skips=False)).eval()
    level, x = network.hourglass, torch.randn(2, 16, 16, 16)
    low = level.up(level.inner(level.down(torch.nn.functional.avg_pool2d(x, 2))))
    doubled = low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(level(x), x + doubled, rtol=1e-4, atol=1e-5)
    assert level.inner.inner.inner.skip(x) is x


@pytest.mark.parametrize("channels", [8, 16])
def test_a_block_concatenates_its_convolutions_and_adds_what_came(channels):
    torch.manual_seed(0)
    block, x = Block(channels, 16).eval(), torch.randn(2, channels, 8, 8)
    first = block.conv1(block.bn1(x).relu())
    second = block.conv2(block.bn2(first).relu())
    third = block.conv3(block.bn3(second).relu())
    skipped = x if channels == 16 else block.skip[2](block.skip[0](x).relu())
    expected = torch.cat((first, second, third), dim=1) + skipped
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


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
