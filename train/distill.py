"""Pack + unlabelled images -> student: a narrower network that finds what the pack finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.runtime.terminal import console
from lmk.train import augment, distributed
from lmk.train.config import UNBOUNDED, DistillConfig, for_device
from lmk.train.datasets import DecodedSet
from lmk.train.device import autocast, on_device, pick_device, pick_dtype, send, to_float
from lmk.train.draws import batch_indices, generator
from lmk.train.loop import Descent, Losses, Models, Optimizers, TrainingRun, compiled, warmup_cosine
from lmk.train.network import (
    BETA,
    WIDTHS,
    LandmarkNetwork,
    find,
    load_pack,
    save_pack,
    soft_argmax,
)
from lmk.train.split import Indices, split_for_training

_JUDGED = 500  # held-out images, at most, on which a student is held against its teacher
_LOOK_EVERY = 500  # steps


def distill(config: DistillConfig, pack: Path, core: Path | None, data: DecodedSet) -> Path:
    """Teach a network of `config.width` channels what `pack` finds; write it as a pack of its own.

    It needs no core, and carries the pack's names, crop scale and way of finding; its header says
    how far it is from its teacher (`teacher`: sha256, mean_px, p99_px over held-out images). Its
    input is as large as the pack's, whatever `config` says. Raises UserError for a student that
    would not be quicker than its teacher: wider, or as wide without having fewer blocks.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    teacher, header = load_pack(pack, core)
    config = replace(for_device(config, device.type), input_size=teacher.config.input_size)
    leaner = teacher.config.skips and not config.skips  # and so quicker, as wide as it is
    most = teacher.config.width if leaner else teacher.config.width - 1
    if WIDTHS[config.width] > most:
        fitting = [name for name, width in WIDTHS.items() if width <= most]
        cure = f"take {' or '.join(fitting)}" if fitting else "it is as quick as they come"
        raise UserError(
            f"--width: got {config.width} ({WIDTHS[config.width]} channels), expected at most "
            f"{most}, to be quicker than {pack}; {cure}"
        )
    run = TrainingRun(
        config.output.with_suffix(""),
        config,
        config.steps or UNBOUNDED,
        config.minutes,
        console(),
        origin=header["sha256"],
        data=data.identity,
    )
    with distributed.owned(config.output):
        run.train(Distillation(config, teacher, header, data, device, run), config.resume)
    return config.output


class Distillation:
    """What a run of distillation repeats, and what it measures and writes."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: LandmarkNetwork,
        header: dict[str, Any],
        data: DecodedSet,
        device: torch.device,
        run: TrainingRun,
    ) -> None:
        self.config, self.header, self.data = config, header, data
        self.device, self.run, self.images = device, run, config.batch
        self.dtype = pick_dtype(config.dtype, device)
        train, self.held_out = split_for_training(data.name, data.splits, config.seed)
        torch.manual_seed(config.seed)
        wanted = teacher.config
        self.student = LandmarkNetwork(
            replace(wanted, width=WIDTHS[config.width], skips=config.skips)
        )
        self.teacher = teacher.eval().requires_grad_(False)
        for model in (self.student, self.teacher):
            model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.naming, self.teacher.naming = teacher.naming, None  # it learns what is found
        distributed.synchronise(self.student)
        self.models: Models = {"student": self.student}
        adam = torch.optim.Adam(self.student.parameters(), lr=config.lr, fused=True)
        self.optimizers: Optimizers = {"student": adam}
        self.descend = Descent(self.models, self.optimizers, 1.0, run.monitor.say)
        self.views = ColouredViews(data, train, config, device)
        self.losses_of = compiled(self._losses, self.views, self.models, config.compile, run)

    def step(self, step: int) -> Losses:
        """One step towards what the teacher finds in a new batch."""
        self.student.train()
        rate = self.config.lr * warmup_cosine(self.run.progress) * self.run.caution
        return self.descend(self.views(step), self.losses_of, rate)

    def _losses(self, seen: Tensor, coloured: Tensor) -> Losses:
        with autocast(self.device, self.dtype):
            with torch.no_grad():
                wanted = self.teacher(seen).float()
            given = self.student(coloured).float()
        return distances(given, wanted, self.config.maps)

    def after_step(self) -> None:
        """Measure and save, now and then."""
        if self.run.step % _LOOK_EVERY == 0:
            self._look()
        if self.run.step % _LOOK_EVERY == 0 or self.run.due():
            self._save()

    def finish(self) -> None:
        """Measure, unless that was just done, and save; a stop leaves no measure of its own."""
        seen = bool(self.run.history) and self.run.history[-1]["step"] == self.run.step
        if not self.run.interrupted and not seen:
            self._look()
        self._save()

    @torch.no_grad()
    def _look(self) -> None:
        """Hold the student against its teacher on upright crops of held-out images."""
        if not distributed.leads():
            return
        self.student.eval()
        chosen = torch.from_numpy(self.held_out[:: -(-len(self.held_out) // _JUDGED)])
        size, away = self.student.config.input_size, []
        for part in chosen.split(64):
            matrices = augment.centred(len(part), self.data.images.shape[1], size)
            images = to_float(self.views.images, part, self.device)
            crops = augment.warp(images, send(matrices, self.device), size)
            points = [find(model, crops)[0] for model in (self.student, self.teacher)]
            away.append((points[0] - points[1]).norm(dim=2).cpu())
        distance = torch.cat(away).numpy()
        mean, p99 = float(distance.mean()), float(np.percentile(distance, 99))
        text = f"step {self.run.step}: {mean:.2f} px from its teacher on {len(distance)} images"
        self.run.record({"mean_px": mean, "p99_px": p99}, text)

    def _save(self) -> None:
        """Write the student, then the state: on a nearly full disk the smaller is more wanted."""
        self.run.check_finite(self.models)
        if distributed.leads():
            self.student.naming = self.naming
            save_pack(self.config.output, self.student, self._header())
            self.student.naming = None
        self.run.save(self.models, self.optimizers)

    def _header(self) -> dict[str, Any]:
        config, taught, rows = self.config, self.header, self.run.history
        distance = {name: row[name] for row in rows[-1:] for name in ("mean_px", "p99_px")}
        kept = ("crop_scale", "landmark_names", "finding", "acceptance", "following", "naming")
        return {
            **{name: taught[name] for name in kept if name in taught},
            "category": config.output.stem,
            "method": "scratch",  # it is rebuilt without a core
            "scope": "all",
            "train_plain_convs": False,
            "core_sha256": "",
            "teacher": {
                "category": taught["category"],
                "sha256": taught["sha256"],
                "rotation": taught.get("config", {}).get("rotation"),
                **distance,
            },
            "data": self.data.name,
            "held_out": self.data.held_out_digests(config.seed),
            "images": len(self.views.indices),
            "step": self.run.step,
            "finished": self.run.finished,
            "seconds": round(self.run.elapsed, 1),
            "config": {**config.recorded(), "output": config.output.name},
        }


class ColouredViews:
    """step -> views (B,3,H,W) in [0, 1], as the teacher sees them and in other colours."""

    def __init__(
        self, data: DecodedSet, indices: Indices, config: DistillConfig, device: torch.device
    ) -> None:
        self.images = on_device(data.images, device)
        self.indices, self.config, self.device = torch.from_numpy(indices), config, device
        self.spec = augment.Similarity(config.rotation, config.scale, config.shift)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        config = self.config
        chosen = self.indices[batch_indices(len(self.indices), config.batch, step, config.seed)]
        draw = generator(config.seed, 1, step)
        source, size = self.images.shape[1], config.input_size
        matrices = augment.random_similarity(len(chosen), source, size, self.spec, draw)
        gains = augment.random_gain(len(chosen), config.gain, draw)
        mine = distributed.share(config.batch)  # of what was drawn for all
        chosen, matrices, gains = (
            send(drawn[mine], self.device) for drawn in (chosen, matrices, gains)
        )
        seen = augment.warp(to_float(self.images, chosen, self.device), matrices, size)
        return seen, augment.gain(seen, gains)


def distances(given: Tensor, wanted: Tensor, maps: float) -> Losses:
    """How far heat-maps `given` (B,K,h,w) are from those `wanted`.

    points: mean |Δ| of their points in cells; maps: that weight times the Kullback-Leibler
    divergence of their soft-maxes, mean over maps.
    """
    away = (soft_argmax(given) - soft_argmax(wanted)).abs().mean()
    student, teacher = ((each * BETA).flatten(2).log_softmax(2) for each in (given, wanted))
    divergence = (teacher.exp() * (teacher - student)).sum(2).mean()
    return {"points": away, "maps": maps * divergence}
