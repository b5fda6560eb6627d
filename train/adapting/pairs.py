"""Images -> pairs of random views of each, and how points move from one to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmk.train import augment, distributed
from lmk.train.augment import random_bend
from lmk.train.config import AdaptConfig
from lmk.train.datasets import DecodedSet
from lmk.train.device import on_device, send, to_float
from lmk.train.draws import batch_indices, generator

NOTHING = torch.empty(0)
LITTLE = 20.0  # degrees about the heading, from which turns grow


class PairBatch(NamedTuple):
    """Views of B images; the first axis of every field is the batch."""

    images: Tensor  # y (B,3,H,W)
    sources: Tensor  # y' (B,3,H,W)
    between: Tensor  # (B,3,3) moves (bent) pixels of y to where they are in y'
    bend: Tensor = NOTHING  # (B,28,2) by which y is bent before; (B,0,2) if it is not
    gains: Tensor = NOTHING  # (B,2,3,1,1) of the colours in which y and y' are seen; or (B,0,…)
    away: Tensor = NOTHING  # (B,2,H,W) pixels from the object in y and y', 0 on it; or (B,0,…)
    other: Tensor = NOTHING  # (B,3,H,W) what is painted from: y' of another frame; or (B,0,…)


class Pairs:
    """step -> a random pair of similarities (and bends and colours) of each image of a batch."""

    def __init__(
        self, data: DecodedSet, indices: Tensor, config: AdaptConfig, device: torch.device
    ) -> None:
        self.images = on_device(data.images, device)
        self.away = None if data.away is None else on_device(data.away, device)
        self.indices, self.config, self.device = indices, config, device
        apart = config.apart_s if data.films else 0.0
        self.frames = OtherFrames(data.films, indices, apart) if apart else None
        # Until turns are full, crops are turned so that the head is up.
        self.upright: Tensor | None = None
        if data.headings is not None and np.isfinite(data.headings).any():
            self.upright = -math.pi / 2 - torch.from_numpy(data.headings)

    def __call__(self, step: int, progress: float = 1.0) -> PairBatch:
        """progress: share of the run that is over; turns may grow with it."""
        config = self.config
        order = batch_indices(len(self.indices), config.batch, step, config.seed)
        mine = distributed.share(config.batch)
        # Not the pairs of the first phase again in the second.
        stream = 4 if config.method == "projection+finetune" else 1
        draw = generator(config.seed, stream, step)
        return self._pairs(self.indices[order], draw, mine, self.frames, progress)

    def fixed(self, chosen: Tensor) -> PairBatch:
        """The pairs of `chosen` images by which a run is watched: the same at every call."""
        return self._pairs(chosen, generator(self.config.seed, 2), slice(None))

    def _pairs(
        self,
        chosen: Tensor,
        draw: torch.Generator,
        mine: slice,
        frames: OtherFrames | None = None,
        progress: float = 1.0,
    ) -> PairBatch:
        """Of the pairs that are drawn for `chosen` images, those in `mine`."""
        config, count = self.config, len(chosen)
        size, source = config.input_size, self.images.shape[1]
        images = to_float(self.images, chosen[mine], self.device)
        rotation, ramp = config.rotation, config.turn_ramp
        is_ramped = self.upright is not None and rotation >= 180 and progress < ramp
        if is_ramped:
            rotation = LITTLE + (rotation - LITTLE) * progress / ramp
        spec = augment.Similarity(rotation, config.scale, config.shift)
        first, second = (
            augment.random_similarity(count, source, size, spec, draw)[mine] for _ in "ab"
        )
        others = frames(chosen, draw)[mine] if frames else None
        from_other = second
        if is_ramped:
            first, second = (self._righted(chosen[mine]) @ each for each in (first, second))
            if others is not None:
                from_other = self._righted(others) @ from_other
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
        away = torch.empty(len(images), 0, size, size, device=self.device)
        if self.away is not None and config.off_object:
            there = self.away[chosen[mine].to(self.away.device)][:, None].float().to(self.device)
            away = torch.cat(
                (
                    augment.warp(there, first, size, bend=bend),
                    augment.warp(there, second, size),
                ),
                dim=1,
            )
        return PairBatch(
            augment.warp(images, first, size, config.border, bend),
            augment.warp(images, second, size, config.border),
            between,
            bend,
            gains,
            away,
            torch.empty(len(images), 0, size, size, device=self.device)
            if others is None
            else augment.warp(
                to_float(self.images, others, self.device),
                send(from_other, self.device),
                size,
                config.border,
            ),
        )

    def _righted(self, chosen: Tensor) -> Tensor:
        """Matrices (B,3,3) that turn the images so that the head is up."""
        assert self.upright is not None
        angles = self.upright[chosen].nan_to_num(0.0)
        return augment.turns(angles, self.images.shape[1])


class OtherFrames:
    """Images of films -> for each another one, of the same object, up to `apart_s` away in time."""

    def __init__(
        self, films: Sequence[tuple[str, int, float]], indices: Tensor, apart_s: float
    ) -> None:
        """films: film, track and seconds of every image; indices: those that may be taken."""
        tracks = {track: n for n, track in enumerate(sorted({film[:2] for film in films}))}
        seconds = torch.tensor([film[2] for film in films], dtype=torch.float64)
        # One line of time for all tracks, so far apart that no draw goes from one to another.
        gap = float(seconds.max() - seconds.min()) + 3 * apart_s
        numbers = torch.tensor([tracks[film[:2]] for film in films], dtype=torch.float64)
        self.when, self.apart_s = seconds - seconds.min() + gap * numbers, apart_s
        self.order = indices[self.when[indices].argsort()]

    def __call__(self, chosen: Tensor, draw: torch.Generator) -> Tensor:
        """Indices (B,) of images; the same one where there is no other so near."""
        away = (torch.rand(len(chosen), generator=draw, dtype=torch.float64) * 2 - 1) * self.apart_s
        wanted, line = self.when[chosen] + away, self.when[self.order]
        after = torch.searchsorted(line, wanted).clamp(1, len(line) - 1)
        nearer = (wanted - line[after - 1]) < (line[after] - wanted)
        taken = self.order[after - nearer.long()]
        near = (self.when[taken] - self.when[chosen]).abs() <= self.apart_s
        return torch.where(near, taken, chosen)
