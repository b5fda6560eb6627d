"""Labelled images of one category -> core: supervised heat-map regression."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.runtime.report import console
from lmk.train import augment, checkpoint
from lmk.train.bottleneck import BETA, gaussian_maps, local_argmax
from lmk.train.config import UNBOUNDED, CoreConfig, for_device
from lmk.train.datasets.decoded import DecodedSet
from lmk.train.device import autocast, on_device, pick_device, pick_dtype, to_float
from lmk.train.hourglass import WIDTHS, HourglassConfig, LandmarkNetwork
from lmk.train.metrics import pck
from lmk.train.run import Run, batch_indices, generator, warmup_cosine
from lmk.train.split import split_for_training


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
    dtype = pick_dtype(config.dtype, device)
    config = for_device(config, device.type)
    train, val = split_for_training(data.name, data.splits, config.seed)
    steps_per_epoch = max(1, len(train) // config.batch)
    steps = config.steps or (config.epochs or 0) * steps_per_epoch or UNBOUNDED

    torch.manual_seed(config.seed)
    network = HourglassConfig(len(data.landmark_names), WIDTHS[config.width], config.input_size)
    model = LandmarkNetwork(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    batches = Batches(data, train, config, device)

    run = Run(config.output.with_suffix(""), config, steps, config.minutes, console())
    if config.resume:
        run.resume({"core": model}, {"core": optimizer})
    with run:
        for step in run:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * warmup_cosine(run.progress)
            images, points = batches(step)
            model.train()
            with autocast(device, dtype):
                heatmaps = model(images)
            loss = heatmap_loss(heatmaps.float(), points, config)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            run.log(config.batch, {"loss": loss.detach()})
            if (step + 1) % steps_per_epoch == 0:
                validate(run, model, data, val, dtype)
            epoch, rest = divmod(step + 1, steps_per_epoch)
            if run.due() or rest == 0:
                _keep(config, run, model, optimizer, data)
            if rest == 0 and epoch in config.keep:
                path = config.output.with_stem(f"{config.output.stem}-epoch{epoch}")
                checkpoint.save_core(path, model, _header(config, run, data))
        if run.step % steps_per_epoch and not run.interrupted:
            validate(run, model, data, val, dtype)
        _keep(config, run, model, optimizer, data)
    if run.interrupted:
        raise KeyboardInterrupt
    return config.output


def _keep(
    config: CoreConfig,
    run: Run,
    model: LandmarkNetwork,
    optimizer: torch.optim.Optimizer,
    data: DecodedSet,
) -> None:
    """Write the core, then the state: on a nearly full disk the smaller is the more wanted."""
    run.check_finite({"core": model})
    checkpoint.save_core(config.output, model, _header(config, run, data))
    run.save({"core": model}, {"core": optimizer})


def _header(config: CoreConfig, run: Run, data: DecodedSet) -> dict[str, Any]:
    return {
        "data": data.name,
        "landmark_names": data.landmark_names,
        "crop_scale": data.crop_scale,
        "config": {**asdict(config), "output": config.output.name},
        "step": run.step,
        "finished": run.finished,
        "seconds": round(run.elapsed, 1),
        "history": run.history,
    }


class Batches:
    """step -> images (B,3,H,W) in [0, 1] and points (B,K,2) in cells, NaN where missing."""

    def __init__(
        self, data: DecodedSet, indices: NDArray[np.intp], config: CoreConfig, device: torch.device
    ) -> None:
        self.images = on_device(data.images, device)
        self.points = torch.from_numpy(data.points).to(device)
        self.indices = torch.from_numpy(indices)
        self.flips = data.scheme.flips and list(data.scheme.flips)
        self.config, self.device = config, device
        self.spec = augment.Similarity(
            config.rotation, config.scale, config.shift, flip=0.5 if self.flips else 0.0
        )

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        config = self.config
        chosen = self.indices[batch_indices(len(self.indices), config.batch, step, config.seed)]
        draw = generator(config.seed, 1, step)
        source, size = self.images.shape[1], config.input_size
        matrices = augment.random_similarity(len(chosen), source, size, self.spec, draw)
        images = augment.warp(to_float(self.images, chosen, self.device), matrices, size)
        points = augment.move_points(self.points[chosen], torch.linalg.inv(matrices))
        if self.flips:
            mirrored = augment.mirrored(matrices).to(self.device)[:, None, None]
            points = torch.where(mirrored, points[:, self.flips], points)
        return augment.gain(images, config.gain, draw), augment.to_cells(points)


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
    return (each * known).sum() / known.sum().clamp(min=1)


@torch.no_grad()
def validate(
    run: Run,
    model: LandmarkNetwork,
    data: DecodedSet,
    indices: NDArray[np.intp],
    dtype: torch.dtype,
) -> None:
    """Record PCK@0.2 on the images of `indices`, in pixels of their crops."""
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
    indices: NDArray[np.intp],
    dtype: torch.dtype = torch.float32,
    batch: int = 64,
) -> NDArray[np.float32]:
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
