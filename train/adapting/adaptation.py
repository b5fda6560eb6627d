"""Unlabelled images -> category pack, by conditional image generation (paper, sec. 3)."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmk.runtime.errors import UserError
from lmk.runtime.model import default_names, read_header
from lmk.runtime.regions import Acceptance
from lmk.runtime.terminal import console
from lmk.train import augment, distributed
from lmk.train.adapting.cores import with_best_core
from lmk.train.adapting.objective import painted_share, pair_losses
from lmk.train.adapting.pairs import PairBatch, Pairs
from lmk.train.adapting.phases import finetune_phase, handed_on, is_finished, projection_phase
from lmk.train.adapting.preview import write_preview
from lmk.train.adapting.whitened import WhitenedAdam
from lmk.train.config import (
    AUTO,
    SPACINGS,
    UNBOUNDED,
    AdaptConfig,
    EvaluateConfig,
    for_device,
)
from lmk.train.datasets import DecodedSet
from lmk.train.device import autocast, pick_device, pick_dtype
from lmk.train.judge import COLLAPSED_SPREAD, REFERENCE, measure_acceptance, write_report
from lmk.train.loop import (
    Descent,
    Losses,
    Models,
    Optimizers,
    TrainingRun,
    compiled,
    follow,
    step_decay,
    warmup_cosine,
)
from lmk.train.network import (
    WIDTHS,
    Generator,
    HourglassConfig,
    LandmarkNetwork,
    ProjectedConv2d,
    checkpoint,
    gaussian_maps,
    new_category,
    perceptual,
    save_pack,
    soft_argmax,
    train_mode,
)
from lmk.train.split import split_for_training, subset

GROWING = {"equivariance", "separation"}  # with --ramp
TURNED, TURNING = 45.0, 0.1  # degrees off the usual heading; share of crops from which it turns
FEWEST_HEADINGS = 20
# Weight of equivariance then: at the usual one landmarks settle on a side of the picture, not of
# the object (results/discover-cpu).
FULL_TURNS = 3.0
# Ten landmarks a cell apart crowd in the middle of an object that fills the crop; two cells drive
# some off one that does not (results/spacing-cpu).
SPACING = 0.2  # of the object's size over the root of K
NOTED = 0.1  # of the run, between two notes of where landmarks are
REPORT_IMAGES, REPORT_VIEWS = 100, 2  # a few seconds without a GPU


def adapt(config: AdaptConfig, data: DecodedSet) -> Path:
    """Learn K landmarks of `data` without labels; write the pack `config.output` and return it.

    Images of a split named val or test are left out, and without splits a seeded tenth, so that
    `evaluate` has images that were never seen. The core AUTO stands for the one that suits `data`,
    see `with_best_core`. Raises UserError for a missing core or a loss that stays not finite;
    KeyboardInterrupt after Ctrl-C, with everything saved.
    """
    if data.plain and config.off_object:
        console().print(
            f"{data.name}: the objects stand before a plain background, so landmarks are kept on "
            "them (--off-object 0: not)"
        )
    return _adapt(config, data)


def _adapt(config: AdaptConfig, data: DecodedSet) -> Path:
    """`adapt`, also for the runs that are a part of it: trials of cores, a phase before."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    if config.rotation is None and _turns(data):
        config = replace(config, rotation=180.0)
    if config.equivariance is None and config.rotation == 180:
        config = replace(config, equivariance=FULL_TURNS)
    if config.spacing is None and data.away is not None:
        config = replace(config, spacing=_spacing(data.away, config.landmarks))
    config = for_device(config, device.type)
    with distributed.owned(config.output):
        if config.core == AUTO:
            config = with_best_core(config, data, _adapt)
        torch.manual_seed(config.seed)
        core, core_sha256 = _core(config)
        width = next((name for name, w in WIDTHS.items() if w == core.config.width), config.width)
        config = replace(config, input_size=core.config.input_size, width=width)
        phase = finetune_phase(config) if config.method == "projection+finetune" else config
        run = TrainingRun(
            folder=config.output.with_suffix(""),
            config=config,
            steps=phase.steps or UNBOUNDED,
            minutes=phase.minutes,
            console=console(),
            origin=core_sha256,
            data=data.identity,
        )
        run.train(Adaptation(config, core, data, device, run), phase.resume)
    return config.output


class Adaptation:
    """What a run of adaptation repeats, and what it shows and writes."""

    def __init__(
        self,
        config: AdaptConfig,
        core: LandmarkNetwork,
        data: DecodedSet,
        device: torch.device,
        run: TrainingRun,
    ) -> None:
        self.config, self.data, self.device, self.run = config, data, device, run
        self.dtype = pick_dtype(config.dtype, device)
        self.images = config.batch
        train, held_out = split_for_training(data.name, data.splits, config.seed)
        self.trained_on, self.held_out = subset(train, config.images, config.seed), held_out
        self.acceptance: Acceptance | None = None  # measured at the end
        self.detector, self.painter = _networks(config, core, data)
        self.models: Models = {"detector": self.detector, "generator": self.painter}
        for model in self.models.values():
            model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            distributed.synchronise(model)
        self.optimizers: Optimizers = {
            name: _adam(model, config) for name, model in self.models.items()
        }
        self.kept = self.detector  # what is looked at and written
        if config.average:
            self.kept = copy.deepcopy(self.detector)
            self.models = {**self.models, "average": self.kept}
        self.descend = Descent(self.models, self.optimizers, config.clip, run.monitor.say)
        self.looks = _features(config, core, device)
        self.pairs = Pairs(data, torch.from_numpy(self.trained_on), config, device)
        self.seen = self.pairs.fixed(torch.from_numpy(held_out[:8]))
        self.schedule = warmup_cosine if config.schedule == "cosine" else step_decay
        self._losses_since: list[Tensor] = []  # the last look or checkpoint
        train_mode(self.detector)
        choice = config.compile
        self.pair_losses = compiled(self._pair_losses, self.pairs, self.models, choice, run)

    def step(self, step: int) -> Losses:
        """One step down the losses of a new batch of pairs."""
        train_mode(self.detector)
        self.painter.train()
        rate = self.config.lr * self.schedule(self.run.progress) * self.run.caution
        losses = self.descend(self.pairs(step, self.run.progress), self._losses, rate)
        self._losses_since.append(torch.stack(list(losses.values())).sum())
        if self.config.average:
            follow(self.kept, self.detector, self.config.average)
        return losses

    def _pair_losses(self, *pair: Tensor) -> Losses:
        with autocast(self.device, self.dtype):
            return pair_losses(
                self.detector, self.painter, self.looks, PairBatch(*pair), self.config
            )

    def _losses(self, *pair: Tensor) -> Losses:
        losses = self.pair_losses(*pair)
        grown = min(1.0, self.run.progress / self.config.ramp) if self.config.ramp else 1.0
        return {n: v * grown if n in GROWING else v for n, v in losses.items()}

    def after_step(self) -> None:
        """Look and save, now and then."""
        if self.run.step % self.config.preview_every == 0 or self.run.due():
            self._look()
            self._save()

    def finish(self) -> None:
        """Look at the end, unless that was just done, and save; a stop leaves no look."""
        seen = bool(self.run.history) and self.run.history[-1]["step"] == self.run.step
        if not self.run.interrupted and not seen:
            self._look()
        if not self.run.interrupted and distributed.leads():
            device = str(self.device)
            self.acceptance = measure_acceptance(self.kept, self.data, self.held_out, device)
        self._save()
        if self.config.report and not self.run.interrupted and distributed.leads():
            self._report()

    def _save(self) -> None:
        self._collect()
        self._write_pack()  # before the state: on a nearly full disk it is the more wanted
        self.run.save(self.models, self.optimizers)

    def _report(self) -> None:
        """Write the page for people, on images that were held out."""
        page, header = self.config.output.with_suffix(".html"), read_header(self.config.output)
        judging = EvaluateConfig(images=REPORT_IMAGES, device=str(self.device))
        judged = write_report(page, self.kept, header, self.data, judging, REPORT_VIEWS)
        self.run.monitor.say(f"{judged.summary} See {page}")

    @torch.no_grad()
    def _look(self) -> None:
        """Write the preview sheet of a fixed batch and warn when its landmarks have collapsed."""
        if not distributed.leads():
            return
        images, sources = self.seen.images, self.seen.sources
        self.kept.eval(), self.painter.eval()
        with autocast(self.device, self.dtype):
            points = soft_argmax(self.kept(images))
            maps = gaussian_maps(points, images.shape[-1] // augment.STRIDE, self.config.sigma)
            painted = self.painter(sources, maps).float()
        if self.seen.away.numel():
            painted = torch.lerp(images, painted, painted_share(self.seen.away[:, :1]))
        spread = float((points - points.mean(dim=1, keepdim=True)).square().sum(2).mean().sqrt())
        sheet = self.run.folder / "preview.png"
        write_preview(sheet, images, sources, painted, augment.to_pixels(points))
        text = f"step {self.run.step}: preview written, spread {spread:.1f} cells"
        values = {"spread": spread, "progress": self.run.progress}
        self._collect()
        if self.run.since:
            values["loss"] = float(torch.tensor(self.run.since).mean())
            self.run.since = []
        self.run.record(values, text)
        self._note_places(augment.to_pixels(points))
        limit = COLLAPSED_SPREAD / REFERENCE * images.shape[-1] / augment.STRIDE  # in cells
        if spread < limit:
            self.run.monitor.say(
                f"warning: the landmarks have collapsed (spread {spread:.2f} cells, expected over "
                f"{limit:.1f}); raise --separation, lower --lr or give more varied images"
            )

    def _collect(self) -> None:
        """Give the run the losses since the last look or checkpoint: it keeps them over a stop."""
        if self._losses_since:  # one transfer from the device for all
            self.run.since += torch.stack(self._losses_since).tolist()
            self._losses_since.clear()

    def _note_places(self, points: Tensor) -> None:
        """Keep points (B,K,2) of the fixed batch, now and then, to tell later how they moved."""
        history = self.run.history
        kept = [row["progress"] for row in history if "points" in row]
        if not kept or self.run.progress - kept[-1] >= NOTED or self.run.progress >= 1:
            history[-1]["points"] = [round(v, 1) for v in points.flatten().tolist()]

    def _course(self) -> dict[str, float]:
        """How far landmarks moved in the second half of the run, and how the loss fell, if known.

        moved_px: median over landmarks; fallen: share of it, from the third to the last quarter.
        """
        rows, known = [row for row in self.run.history if "progress" in row], {}
        places = [
            np.reshape(row["points"], (-1, 2))
            for row in rows
            if "points" in row and row["progress"] >= 0.5
        ]
        if len(places) > 1:
            moved = np.linalg.norm(places[-1] - places[0], axis=1)
            known["moved_px"] = round(float(np.median(moved)), 2)
        third, last = (
            [row["loss"] for row in rows if "loss" in row and low < row["progress"] <= low + 0.25]
            for low in (0.5, 0.75)
        )
        if third and last:
            known["fallen"] = round(float(1 - np.mean(last) / np.mean(third)), 3)
        return known

    def _write_pack(self) -> None:
        config, run = self.config, self.run
        header = {
            "category": config.output.stem,
            "method": config.method,
            "scope": config.scope,
            "train_plain_convs": config.train_plain_convs,
            "core_sha256": run.origin,
            "crop_scale": self.data.crop_scale,
            "acceptance": self.acceptance and self.acceptance.to_json(),
            "landmark_names": default_names(config.landmarks),
            "data": self.data.name,
            "held_out": self.data.held_out_digests(config.seed),
            "finding": self.data.finding and self.data.finding.to_json(),
            "images": len(self.trained_on),
            "step": run.step,
            "finished": run.finished,
            "seconds": round(run.elapsed, 1),
            "course": self._course(),
            "config": {
                **config.recorded(),
                "output": config.output.name,
                "core": config.core and config.core.name,
                "vgg": config.vgg and config.vgg.name,
            },
        }
        run.check_finite({"detector": self.kept})
        if distributed.leads():
            save_pack(config.output, self.kept, header)


def _core(config: AdaptConfig) -> tuple[LandmarkNetwork, str]:
    if config.core is not None:
        core, header = checkpoint.load_core(config.core)
        return core, header["sha256"]
    if config.method != "scratch":
        raise UserError(
            f"--method {config.method}: needs a core; run `lmk train-core` or give --core"
        )
    network = HourglassConfig(config.landmarks, WIDTHS[config.width], config.input_size)
    return LandmarkNetwork(network).eval(), ""


def _spacing(away: NDArray[np.uint8], landmarks: int) -> float:
    """How far apart landmarks are driven on objects of known size, in cells: at least one."""
    areas = np.array([np.count_nonzero(each == 0) for each in away if each.any()])
    size = math.sqrt(areas[areas > 0].mean()) / augment.STRIDE if areas.any() else 0.0
    return min(max(1.0, round(SPACING * size / math.sqrt(landmarks), 2)), SPACINGS[1])


def _turns(data: DecodedSet) -> bool:
    """Whether the object is seen heading in many directions; says so if it is."""
    if data.headings is None:
        return False
    known = data.headings[np.isfinite(data.headings)]
    if len(known) < FEWEST_HEADINGS:
        return False
    mean = np.angle(np.exp(1j * known).mean())
    turned = float((np.cos(known - mean) < math.cos(math.radians(TURNED))).mean())
    if turned < TURNING:
        return False
    console().print(
        f"{data.name}: the object turns (in {turned:.0%} of the crops it heads more than "
        f"{TURNED:g}° off the usual way); learning with full turns, --rotation 180"
    )
    return True


def _networks(
    config: AdaptConfig, core: LandmarkNetwork, data: DecodedSet
) -> tuple[LandmarkNetwork, Generator]:
    """Detector and generator as training finds them; projection+finetune learns W here."""
    detector = new_category(
        config.method, core, config.landmarks, config.scope, config.train_plain_convs
    )
    painter = Generator(config.landmarks, config.generator_width)
    if config.method == "projection+finetune":
        first = projection_phase(config)
        if not (config.resume and is_finished(first.output)):
            _adapt(first, data)
        states = handed_on(first.output, config.core)
        detector.load_state_dict(states["detector"])
        painter.load_state_dict(states["generator"])
    return detector, painter


def _features(
    config: AdaptConfig, core: LandmarkNetwork, device: torch.device
) -> perceptual.Features | None:
    if config.perceptual == "none":
        return None
    if config.perceptual == "core":
        if config.core is None:
            raise UserError("--perceptual core: needs a core; give --core, or --perceptual vgg19")
        return perceptual.core_features(core.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    network = perceptual.Vgg(config.perceptual, config.vgg, config.vgg_normalise)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _adam(model: nn.Module, config: AdaptConfig) -> torch.optim.Adam:
    layers = [m for m in model.modules() if isinstance(m, ProjectedConv2d)]
    own = {id(layer.projection) for layer in layers}
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) not in own], "factor": 1.0},
        {"params": [p for p in trainable if id(p) in own], "factor": config.projection_rate},
    ]
    return WhitenedAdam(
        [group for group in groups if group["params"]],
        layers if config.whiten else (),
        lr=config.lr,
        betas=(config.beta1, 0.9),
        weight_decay=config.weight_decay,
        fused=True,
    )
