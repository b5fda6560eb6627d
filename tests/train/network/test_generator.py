"""The generator: the paper's and the released size, and what its output depends on."""

import pytest
import torch

from lmk.train.network.generator import Generator


@pytest.mark.parametrize(("width", "expected"), [(64, 9_030_824), (32, 2_424_424)])
def test_parameters(width, expected):
    assert sum(p.numel() for p in Generator(10, width).parameters()) == expected


def test_paints_an_image_from_image_and_maps():
    torch.manual_seed(0)
    painter = Generator(5, 8)
    images = torch.rand(3, 3, 64, 64, requires_grad=True)
    maps = torch.rand(3, 5, 16, 16, requires_grad=True)
    painted = painter(images, maps)
    assert painted.shape == (3, 3, 64, 64)
    assert painted.min() >= 0 and painted.max() <= 1
    painted.square().sum().backward()
    for gradient in (images.grad, maps.grad):
        assert gradient.abs().amax(dim=(2, 3)).min() > 0
