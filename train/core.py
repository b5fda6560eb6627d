"""Labelled images of one category -> core: supervised heat-map regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.runtime.terminal import console
from lmk.train import augment, distributed
from lmk.train.config import UNBOUNDED, CoreConfig, for_device
from lmk.train.datasets import DecodedSet, PointArray
from lmk.train.device import autocast, on_device, pick_device, pick_dtype, send, to_float
from lmk.train.draws import batch_indices, generator
from lmk.train.judge import pck
from lmk.train.loop import Descent, Losses, Models, Optimizers, TrainingRun, compiled, warmup_cosine
from lmk.train.network import (
    BETA,
    WIDTHS,
    HourglassConfig,
    LandmarkNetwork,
    checkpoint,
    gaussian_maps,
    local_argmax,
)
from lmk.train.split import Indices, split_for_training


def train_core(config: CoreConfig, data: DecodedSet) -> Path:
    """Train on the annotated points of `data`, validate each epoch, write `config.output`.

    Validation is the split named val or test, else a tenth of the images, and is never trained
    on. Reported: PCK@0.2 of the torso (or what else the scheme of the landmarks divides by).
    Raises UserError for unlabelled data. Returns the path of the core.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if not data.landmark_names:
        raise UserError(f"{data.name}: no annotated points, expected some; `lmk adapt` needs none")
    if not np.isfinite(data.points).all(axis=2).any():
        raise UserError(f"{data.name}: got no visible point in any image, expected some; annotate")
    device = pick_device(config.device)
    config = for_device(config, device.type)
    train, val = split_for_training(data.name, data.splits, config.seed)
    epoch = max(1, len(train) // config.batch)
    steps = config.steps or (config.epochs or 0) * epoch or UNBOUNDED
    if config.keep and max(config.keep) * epoch > steps:
        raise UserError(
            f"--keep: got {max(config.keep)}, expected at most the {steps // epoch} epochs of the "
            "run; lower it or raise --epochs"
        )
    folder, identity = config.output.with_suffix(""), data.identity
    with distributed.owned(config.output):
        run = TrainingRun(folder, config, steps, config.minutes, console(), data=identity)
        run.train(Supervision(config, data, train, val, device, run), config.resume)
    return config.output


class Supervision:
    """What a run of supervised training repeats, and what it measures and writes."""

    def __init__(
        self,
        config: CoreConfig,
        data: DecodedSet,
        train: Indices,
        val: Indices,
        device: torch.device,
        run: TrainingRun,
    ) -> None:
        self.config, self.data, self.val, self.device, self.run = config, data, val, device, run
        self.dtype = pick_dtype(config.dtype, device)
        self.images = config.batch
        self.epoch = max(1, len(train) // config.batch)  # steps
        torch.manual_seed(config.seed)
        network = HourglassConfig(len(data.landmark_names), WIDTHS[config.width], config.input_size)
        self.model = LandmarkNetwork(network)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.synchronise(self.model)
        self.models: Models = {"core": self.model}
        adam = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        self.optimizers: Optimizers = {"core": adam}
        self.descend = Descent(self.models, self.optimizers, None, run.monitor.say)
        self.batches = Batches(data, train, config, device)
        choice = config.compile
        self.losses_of = compiled(self._losses, self.batches, self.models, choice, run)

    def step(self, step: int) -> Losses:
        """One step down the loss of a new batch."""
        self.model.train()
        rate = self.config.lr * warmup_cosine(self.run.progress) * self.run.caution
        return self.descend(self.batches(step), self.losses_of, rate)

    def _losses(self, images: Tensor, points: Tensor) -> Losses:
        with autocast(self.device, self.dtype):
            heatmaps = self.model(images)
        return {"loss": heatmap_loss(heatmaps.float(), points, self.config)}

    def after_step(self) -> None:
        """Validate and save after every epoch; save now and then within one."""
        epoch, rest = divmod(self.run.step, self.epoch)
        if not rest:
            validate(self.run, self.model, self.data, self.val, self.dtype)
        if not rest or self.run.due():
            self._save()
        if not rest and epoch in self.config.keep and distributed.leads():
            path = self.config.output.with_stem(f"{self.config.output.stem}-epoch{epoch}")
            checkpoint.save_core(path, self.model, _header(self.config, self.run, self.data))

    def finish(self) -> None:
        """Validate what is left of an epoch, and save."""
        if self.run.step % self.epoch and not self.run.interrupted:
            validate(self.run, self.model, self.data, self.val, self.dtype)
        self._save()

    def _save(self) -> None:
        """Write the core, then the state: on a nearly full disk the smaller is the more wanted."""
        self.run.check_finite(self.models)
        if distributed.leads():
            header = _header(self.config, self.run, self.data)
            checkpoint.save_core(self.config.output, self.model, header)
        self.run.save(self.models, self.optimizers)


def _header(config: CoreConfig, run: TrainingRun, data: DecodedSet) -> dict[str, Any]:
    return {
        "data": data.name,
        "landmark_names": data.landmark_names,
        "crop_scale": data.crop_scale,
        "config": {**config.recorded(), "output": config.output.name},
        "step": run.step,
        "finished": run.finished,
        "seconds": round(run.elapsed, 1),
        "history": run.history,
    }


class Batches:
    """step -> images (B,3,H,W) in [0, 1] and points (B,K,2) in cells, NaN where missing."""

    def __init__(
        self, data: DecodedSet, indices: Indices, config: CoreConfig, device: torch.device
    ) -> None:
        self.images = on_device(data.images, device)
        self.points = torch.from_numpy(data.points).to(device)
        self.indices = torch.from_numpy(indices)
        flips = data.scheme.flips
        self.flips = torch.tensor(flips, device=device) if flips else None
        self.config, self.device = config, device
        self.spec = augment.Similarity(
            config.rotation, config.scale, config.shift, flip=0.0 if self.flips is None else 0.5
        )

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        config = self.config
        chosen = self.indices[batch_indices(len(self.indices), config.batch, step, config.seed)]
        draw = generator(config.seed, 1, step)
        source, size = self.images.shape[1], config.input_size
        matrices = augment.random_similarity(len(chosen), source, size, self.spec, draw)
        gains = augment.random_gain(len(chosen), config.gain, draw)
        mine = distributed.share(config.batch)  # of what was drawn for all
        chosen, matrices, gains = chosen[mine], matrices[mine], gains[mine]
        inverse, mirrored = torch.linalg.inv(matrices), augment.mirrored(matrices)
        chosen, matrices, gains, inverse, mirrored = (
            send(drawn, self.device) for drawn in (chosen, matrices, gains, inverse, mirrored)
        )
        images = augment.warp(to_float(self.images, chosen, self.device), matrices, size)
        points = augment.move_points(self.points[chosen], inverse)
        if self.flips is not None:
            points = torch.where(mirrored[:, None, None], points[:, self.flips], points)
        return augment.gain(images, gains), augment.to_cells(points)


def heatmap_loss(heatmaps: Tensor, points: Tensor, config: CoreConfig) -> Tensor:
    """Loss of maps (B,K,h,w) against Gaussians at points (B,K,2) in cells.

    Points that are missing (NaN) or outside the map are masked.
    """
    size = heatmaps.shape[-1]
    known = ((points >= -0.5) & (points <= size - 0.5)).all(dim=2)
    # Far outside, a Gaussian underflows to a map of zeros, which no division makes a distribution.
    points = torch.where(known[..., None], points, 0.0)
    target = gaussian_maps(points, size, config.target_sigma)
    if config.loss == "softmax":
        target = target / target.sum(dim=(2, 3), keepdim=True)
        log_probability = F.log_softmax((heatmaps * BETA).flatten(2), dim=2)
        each = -(target.flatten(2) * log_probability).sum(dim=2)
    else:
        each = (heatmaps - target).square().mean(dim=(2, 3))
    return distributed.mean_where(each, known)


@torch.no_grad()
def validate(
    run: TrainingRun,
    model: LandmarkNetwork,
    data: DecodedSet,
    indices: Indices,
    dtype: torch.dtype,
) -> None:
    """Record PCK@0.2 on the images of `indices`, in pixels of their crops."""
    if not distributed.leads():
        return
    points = find_points(model, data, indices, dtype)
    truth = data.crop_points(indices, model.config.input_size)
    normaliser = data.scheme.normaliser
    overall, each = pck(points, truth, normaliser.lengths(truth, data.lengths[indices]))
    values = {"pck": overall}
    values |= {f"pck_{n}": float(v) for n, v in zip(data.landmark_names, each, strict=True)}
    text = f"step {run.step}: PCK@0.2 of the {normaliser.label} {overall:.4f}, {run.elapsed:.0f} s"
    run.record(values, text)


@torch.no_grad()
def find_points(
    model: LandmarkNetwork,
    data: DecodedSet,
    indices: Indices,
    dtype: torch.dtype = torch.float32,
    batch: int = 64,
) -> PointArray:
    """Points (N,K,2) in pixels of the central crops, by local arg-max of the maps."""
    model.eval()
    device = next(model.parameters()).device
    size = model.config.input_size
    images = torch.from_numpy(data.images)
    found = []
    for part in torch.from_numpy(indices).split(batch):
        matrices = augment.centred(len(part), data.images.shape[1], size)
        crops = augment.warp(to_float(images, part, device), matrices, size)
        with autocast(device, dtype):
            heatmaps = model(crops)
        found.append(augment.to_pixels(local_argmax(heatmaps.float())).cpu())
    return torch.cat(found).numpy()
