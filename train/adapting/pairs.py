"""Images -> pairs of random views of each, and how points move from one to the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lmk.train import augment, distributed
from lmk.train.augment import random_bend
from lmk.train.config import AdaptConfig
from lmk.train.datasets import DecodedSet
from lmk.train.device import on_device, send, to_float
from lmk.train.draws import batch_indices, generator

NOTHING = torch.empty(0)


class PairBatch(NamedTuple):
    """Views of B images; the first axis of every field is the batch."""

    images: Tensor  # y (B,3,H,W)
    sources: Tensor  # y' (B,3,H,W)
    between: Tensor  # (B,3,3) moves (bent) pixels of y to where they are in y'
    bend: Tensor = NOTHING  # (B,28,2) by which y is bent before; (B,0,2) if it is not
    gains: Tensor = NOTHING  # (B,2,3,1,1) of the colours in which y and y' are seen; or (B,0,…)


class Pairs:
    """step -> a random pair of similarities (and bends and colours) of each image of a batch."""

    def __init__(
        self, data: DecodedSet, indices: Tensor, config: AdaptConfig, device: torch.device
    ) -> None:
        self.images = on_device(data.images, device)
        self.indices, self.config, self.device = indices, config, device
        self.spec = augment.Similarity(config.rotation, config.scale, config.shift)

    def __call__(self, step: int) -> PairBatch:
        config = self.config
        order = batch_indices(len(self.indices), config.batch, step, config.seed)
        mine = distributed.share(config.batch)
        # Not the pairs of the first phase again in the second.
        stream = 4 if config.method == "projection+finetune" else 1
        return self._pairs(self.indices[order], generator(config.seed, stream, step), mine)

    def fixed(self, chosen: Tensor) -> PairBatch:
        """The pairs of `chosen` images by which a run is watched: the same at every call."""
        return self._pairs(chosen, generator(self.config.seed, 2), slice(None))

    def _pairs(self, chosen: Tensor, draw: torch.Generator, mine: slice) -> PairBatch:
        """Of the pairs that are drawn for `chosen` images, those in `mine`."""
        config, count = self.config, len(chosen)
        size, source = config.input_size, self.images.shape[1]
        images = to_float(self.images, chosen[mine], self.device)
        first, second = (
            augment.random_similarity(count, source, size, self.spec, draw)[mine] for _ in "ab"
        )
        between = torch.linalg.inv(second) @ first
        bend = torch.empty(len(images), 0, 2)
        if config.bend:
            bend = random_bend(count, size, config.bend, draw)[mine]
        gains = torch.empty(len(images), 0, 3, 1, 1)
        if config.jitter:
            gains = augment.random_gain(2 * count, config.jitter, draw)
            gains = gains.unflatten(0, (count, 2))[mine]
        bend, first, second, between, gains = (
            send(drawn, self.device) for drawn in (bend, first, second, between, gains)
        )
        return PairBatch(
            augment.warp(images, first, size, config.border, bend),
            augment.warp(images, second, size, config.border),
            between,
            bend,
            gains,
        )
