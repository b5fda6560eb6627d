"""Training as a careful student would write it: what `training.py` compares ours with.

The same networks, losses and batches; every image is decoded, turned and scaled by PIL in the
workers of a DataLoader, in float32 and contiguous memory, with a plain Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lmk.train import augment
from lmk.train.adapting import PairBatch, objective
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.core import heatmap_loss
from lmk.train.datasets import Dataset as LabelledSet
from lmk.train.network import (
    Generator,
    LandmarkNetwork,
    gaussian_maps,
    new_category,
    perceptual,
    soft_argmax,
)

TrainStep = Callable[[], None]


class PlainPairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Two random similarities of each image, and the matrix from one to the other."""

    def __init__(self, data: LabelledSet, config: AdaptConfig) -> None:
        self.data, self.size = data, config.input_size
        self.spec = augment.Similarity(config.rotation, config.scale, config.shift)

    def __len__(self) -> int:
        return len(self.data.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image = Image.fromarray(self.data.samples[index].read())
        small = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        first, second = (_random(self.size, self.spec) for _ in "ab")
        between = torch.linalg.inv(second) @ first
        return _warped(small, first), _warped(small, second), between


class Labelled(Dataset[tuple[Tensor, Tensor]]):
    """A random similarity of each image and its points in cells, with random gains."""

    def __init__(self, data: LabelledSet, config: CoreConfig) -> None:
        self.data, self.config = data, config
        self.spec = augment.Similarity(config.rotation, config.scale, config.shift)

    def __len__(self) -> int:
        return len(self.data.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample, size = self.data.samples[index], self.config.input_size
        image = Image.fromarray(sample.read())
        small = image.resize((size, size), Image.Resampling.BILINEAR)
        matrix = _random(size, self.spec)
        scale = torch.tensor([size / image.width, size / image.height])
        points = (torch.from_numpy(sample.points) + 0.5) * scale - 0.5
        moved = augment.move_points(points[None], torch.linalg.inv(matrix)[None])[0]
        gains = 1 + (torch.rand(3, 1, 1) * 2 - 1) * self.config.gain
        return (_warped(small, matrix) * gains).clamp(0, 1), augment.to_cells(moved)


def _random(size: int, spec: augment.Similarity) -> Tensor:
    draw = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return augment.random_similarity(1, size, size, spec, draw)[0]


def _warped(image: Image.Image, matrix: Tensor) -> Tensor:
    """An image (S,S) seen through a matrix from output to source pixels: float (3,S,S)."""
    coefficients = matrix[:2].flatten().tolist()
    moved = image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return torch.from_numpy(np.array(moved)).permute(2, 0, 1).float() / 255


def _forever(data: Dataset[Any], batch: int, workers: int) -> Iterator[Any]:
    loader = DataLoader(
        data, batch, True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    while True:
        yield from loader


def adapting(
    config: AdaptConfig,
    core: LandmarkNetwork,
    data: LabelledSet,
    device: torch.device,
    workers: int,
) -> TrainStep:
    """A step of adaptation, to be called again and again."""
    method = config.method, core, config.landmarks, config.scope, config.train_plain_convs
    detector = new_category(*method).to(device).train()
    painter = Generator(config.landmarks, config.generator_width).to(device).train()
    features = perceptual.core_features(core.to(device))
    models: tuple[nn.Module, ...] = (detector, painter)
    optimizers = [_adam(model, config.lr, (config.beta1, 0.9)) for model in models]
    batches = _forever(PlainPairs(data, config), config.batch, workers)

    def step() -> None:
        pair = PairBatch(*(part.to(device) for part in next(batches)))
        images, sources = pair.images, pair.sources
        points, others = (soft_argmax(detector(x)) for x in (images, sources))
        size = images.shape[-1] // augment.STRIDE
        painted = painter(sources, gaussian_maps(points, size, config.sigma))
        loss = (painted - images).square().mean() + _unlike(features, painted, images)
        both = torch.cat((points, others))
        loss = loss + config.equivariance * objective.equivariance(both, pair)
        loss = loss + config.separation * objective.separation(both, config.spacing)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for model, optimizer in zip(models, optimizers, strict=True):
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()

    return step


def supervising(
    config: CoreConfig,
    model: LandmarkNetwork,
    data: LabelledSet,
    device: torch.device,
    workers: int,
) -> TrainStep:
    """A step of supervised training, to be called again and again."""
    model.to(device).train()
    optimizer = _adam(model, config.lr, (0.9, 0.999))
    batches = _forever(Labelled(data, config), config.batch, workers)

    def step() -> None:
        images, points = (part.to(device) for part in next(batches))
        optimizer.zero_grad()
        heatmap_loss(model(images), points, config).backward()
        optimizer.step()

    return step


def _adam(model: nn.Module, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr, betas)


def _unlike(features: perceptual.Features, images: Tensor, target: Tensor) -> Tensor:
    """The relative l1 distance of the features, term by term."""
    with torch.no_grad():
        wanted = features(target)
    total = images.new_zeros(())
    for got, want in zip(features(images), wanted, strict=True):
        total = total + (got - want).abs().mean() / (want.abs().mean() + 1e-6)
    return total
