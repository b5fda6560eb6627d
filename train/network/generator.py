"""Deformed image and landmark maps -> reconstructed image: the conditional generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RESIDUAL_BLOCKS = 6


class Residual(nn.Module):
    """conv BN ReLU conv BN beside the identity, no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(channels, channels), *_conv(channels, channels)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _conv(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    padding = (kernel - 1) // 2
    return [
        nn.Conv2d(inside, outside, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    ]


def _up(inside: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(inside, inside // 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(inside // 2),
        nn.ReLU(inplace=True),
    ]


class Generator(nn.Module):
    """images y' (B,3,H,W) in [0, 1] and maps of y (B,K,H/4,W/4) -> y (B,3,H,W) in [0, 1].

    `width` 64 gives the paper's features of up to 256 channels at a quarter of the resolution
    (9,030,824 parameters at K=10); 32 is what the authors released (2,424,424). No skip
    connection passes the bottleneck, so where things go is known from the landmarks alone.
    """

    def __init__(self, num_landmarks: int, width: int = 64) -> None:
        super().__init__()
        joint = 4 * width + num_landmarks
        self.encoder = nn.Sequential(
            *_conv(3, width, 7), *_conv(width, 2 * width, 4, 2), *_conv(2 * width, 4 * width, 4, 2)
        )
        self.decoder = nn.Sequential(
            nn.BatchNorm2d(joint),
            *(Residual(joint) for _ in range(RESIDUAL_BLOCKS)),
            *_up(joint),
            *_up(joint // 2),
            nn.Conv2d(joint // 4, 3, 7, padding=3, bias=False),
            nn.Tanh(),
        )

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        features = self.encoder(images)
        return (self.decoder(torch.cat((features, maps.to(features)), dim=1)) + 1) / 2
