"""A pack's network + annotated crops -> the network with a heat-map for each annotated point.

`point_fit` says where points are by the landmarks that were found, and cannot say it of what lies
near none of them, a limb or the tip of a wing. Here W, the batch-norms and the head learn on, from
views of the few annotated crops, until maps of the points' own find them; what comes before the
hourglass stays, which takes half of the time. The landmarks, by which objects are followed, are
held where the pack had them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.runtime.terminal import console, progress
from lmk.train import augment
from lmk.train.datasets import PointArray
from lmk.train.device import autocast, on_device, pick_device, pick_dtype, send, to_float
from lmk.train.distill import distances
from lmk.train.draws import batch_indices, generator
from lmk.train.judge.point_fit import Doubles, Fit, fit
from lmk.train.loop import Descent, FreeCores, Losses, warmup_cosine
from lmk.train.network import (
    BETA,
    LandmarkNetwork,
    ProjectedConv2d,
    expectation,
    find,
    gaussian_maps,
    with_maps,
)

PARTS = 3  # of the annotated crops, each left out in turn: each takes as long as all together
_MAPS = 1.0  # weight of the maps' cross-entropy beside the points' distance: 0.2 leaves scores low
_HOLD = 2.0  # weight of the landmarks', by which objects are followed
_SIGMA = 0.6  # cells, of the maps that are wanted: they have 96 % within the radius of a score
_PROJECTION_RATE = 3.0  # rate of W over that of the rest
_BATCH = 16
USUAL_ROTATION = 20.0  # degrees


@dataclass(frozen=True)
class Learning:
    """The budget of learning maps, for all that is left out in turn and the last time together.

    Only `steps`, of each time, make the result the same on every machine.
    """

    minutes: float | None = None
    steps: int | None = None
    lr: float = 2e-3
    rotation: float | None = None  # of the views: ± degrees; None: as the pack was learnt
    scale: float = 0.25
    shift: float = 0.1
    gain: float = 0.3
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raise UserError for a budget of nothing, and without any."""
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if not given or min(given) <= 0:
            raise UserError(f"--learn: got {given or 'nothing'}, expected a time over 0, as 5m")


@dataclass(frozen=True)
class Learnt:
    """What came of it: the network with maps for K landmarks and M points, and how they are used.

    `fit.weight` (M,K+M): a point is its own map, or a weighted mean of landmarks, whichever was
    nearer where it was left out; `left_out` (N,M,2): what was said of each crop by what had not
    seen it, in crop pixels.
    """

    model: LandmarkNetwork
    fit: Fit
    left_out: Doubles
    landmarks: int

    @property
    def maps(self) -> list[int]:
        """Numbers of the points that have maps of their own."""
        return [int(n) for n in np.flatnonzero(self.fit.weight[:, self.landmarks :].any(axis=1))]

    def of_points(self, kept: Sequence[int]) -> Learnt:
        """The same for some of the points; maps that no point has are left out."""
        weight, landmarks = self.fit.weight[kept], self.landmarks
        maps = landmarks + np.flatnonzero(weight[:, landmarks:].any(axis=0))
        rows = [*range(landmarks), *maps.tolist()]
        fitted = Fit(weight[:, rows], self.fit.offset[kept], self.fit.ridge)
        model = with_maps(self.model, [[row] for row in rows])
        return Learnt(model, fitted, self.left_out[:, kept], landmarks)


def left_out_parts(frames: Sequence[str]) -> list[NDArray[np.intp]]:
    """Which crops are left out together: those of neighbouring `frames`, all objects of a frame."""
    numbers = {frame: number for number, frame in enumerate(dict.fromkeys(frames))}
    of_crops = np.array([numbers[frame] for frame in frames])
    each = np.array_split(np.arange(len(numbers)), min(PARTS, len(numbers)))
    return [np.flatnonzero(np.isin(of_crops, part)) for part in each]


def find_all(model: LandmarkNetwork, crops: NDArray[np.uint8]) -> PointArray:
    """The landmarks (N,K,2) that `model` finds in crops (N,S,S,3), in their pixels."""
    device = model.head.weight.device
    with torch.inference_mode():
        parts = torch.from_numpy(crops).permute(0, 3, 1, 2).split(_BATCH)
        return torch.cat([find(model, part.to(device) / 255)[0].cpu() for part in parts]).numpy()


def learn_maps(
    model: LandmarkNetwork,
    crops: NDArray[np.uint8],
    around: NDArray[np.uint8],
    points: PointArray,
    parts: Sequence[NDArray[np.intp]],
    learning: Learning,
    ridge: float | None = None,
) -> Learnt:
    """Teach a copy of `model`, of K landmarks, the points (N,M,2) of `crops` (N,S,S,3).

    points: in pixels of the crops, NaN where missing; around (N,R,R,3): the same crops with what is
    about them, for the views; parts: which are left out together, the others must have each point.
    Raises UserError for a device that is not there, and if the loss does not stay finite.
    """
    landmarks, count = model.config.num_landmarks, len(around)
    by_fit, by_map = np.empty(points.shape), np.empty(points.shape)
    title = f"learning {points.shape[1]} points"
    with progress(title, total=100) as report:

        def taught(turn: int, chosen: NDArray[np.intp]) -> tuple[LandmarkNetwork, PointArray]:
            def share(done: float) -> None:
                report(round(100 * (turn + done) / (len(parts) + 1)), None)

            each = replace(
                learning, minutes=learning.minutes and learning.minutes / (len(parts) + 1)
            )
            lesson = _Lesson(model, crops[chosen], around[chosen], points[chosen], each)
            lesson.run(share)
            return lesson.network, find_all(lesson.network, crops)

        for turn, part in enumerate(parts):
            others = np.setdiff1d(np.arange(count), part)
            _, found = taught(turn, others)
            fitted = fit(found[others, :landmarks], points[others], ridge)
            by_fit[part], by_map[part] = fitted(found[part, :landmarks]), found[part, landmarks:]
        network, found = taught(len(parts), np.arange(count))
    off = np.stack([np.linalg.norm(said - points, axis=2) for said in (by_map, by_fit)])
    said = np.empty(points.shape)
    for part in parts:  # by what is nearer in the others: else the error would be too good
        own = _is_nearer(*np.delete(off, part, axis=1))
        said[part] = np.where(own[:, None], by_map[part], by_fit[part])
    own = _is_nearer(*off)
    fitted = fit(found[:, :landmarks], points, ridge)
    weight = np.where(own[:, None], 0.0, fitted.weight)
    weight = np.concatenate((weight, np.diag(own.astype(np.float64))), axis=1)
    offset = np.where(own[:, None], 0.0, fitted.offset)
    learnt = Learnt(network.cpu(), Fit(weight, offset, fitted.ridge), said, landmarks)
    return learnt.of_points(range(len(own)))


def _is_nearer(one: Doubles, other: Doubles) -> NDArray[np.bool_]:
    """Whether errors (N,M) are the smaller on average, of each point; NaN: not known."""
    return np.asarray(np.nanmean(one, axis=0) < np.nanmean(other, axis=0))


class _Lesson:
    """One training on annotated crops."""

    def __init__(
        self,
        model: LandmarkNetwork,
        crops: NDArray[np.uint8],
        around: NDArray[np.uint8],
        points: PointArray,
        learning: Learning,
    ) -> None:
        self.learning, self.size = learning, model.config.input_size
        self.device = pick_device(learning.device)
        self.dtype = pick_dtype("auto", self.device)
        self.known = copy.deepcopy(model).eval().requires_grad_(False).to(self.device)
        self.landmarks = model.config.num_landmarks
        # A point's map begins as that of the landmark that is nearest to it.
        away = np.linalg.norm(points[:, :, None] - find_all(model, crops)[:, None], axis=3)
        nearest = np.nanmean(away, axis=0).argmin(axis=1)
        groups = [[row] for row in (*range(self.landmarks), *nearest.tolist())]
        self.network = with_maps(model, groups).to(self.device)
        self.network.eval()  # batch-norms keep their statistics: so few objects have others
        self.images = on_device(around, self.device)
        self.points = torch.from_numpy(points.astype(np.float32))
        projections = [
            m.projection for m in self.network.modules() if isinstance(m, ProjectedConv2d)
        ]
        own = {id(projection) for projection in projections}
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in own]
        rates: list[dict[str, Any]] = [
            {"params": rest},
            {"params": projections, "factor": _PROJECTION_RATE},
        ]
        adam = torch.optim.Adam(
            [group for group in rates if group["params"]],
            betas=(0.9, 0.99),
            weight_decay=5e-4,
            fused=True,
        )
        models, optimizers = {"network": self.network}, {"network": adam}
        self.descend = Descent(models, optimizers, 1.0, console().print)

    def run(self, share: Callable[[float], None]) -> None:
        """Learn until the budget is spent; `share` is told how much of it is."""
        learning, started, step = self.learning, time.monotonic(), 0
        # Of so many steps the result is the same whatever else the machine does.
        fixed = self.device.type != "cpu" or not learning.minutes
        with FreeCores(console().print, fixed=fixed) as cores:
            while True:
                spent = step / learning.steps if learning.steps else 0.0
                if learning.minutes:
                    spent = max(spent, (time.monotonic() - started) / 60 / learning.minutes)
                share(min(spent, 1.0))
                if spent >= 1:
                    break
                cores.adjust()
                losses = self.descend(
                    self._views(step), self._losses, learning.lr * warmup_cosine(spent)
                )
                step += 1
        if step and not all(value.isfinite() for value in losses.values()):
            raise UserError(
                f"learning: got a loss of {float(sum(losses.values()))} after {step} steps, "
                "expected a number; name the points without it"
            )

    def _views(self, step: int) -> tuple[Tensor, Tensor]:
        """Crops (B,3,S,S) in other places and colours, and their points (B,M,2) in cells."""
        learning, count = self.learning, len(self.images)
        chosen = batch_indices(count, _BATCH, step, learning.seed)
        draw = generator(learning.seed, 6, step)
        rotation = USUAL_ROTATION if learning.rotation is None else learning.rotation
        spec = augment.Similarity(rotation, learning.scale, learning.shift)
        source = self.images.shape[1]
        moves = augment.random_similarity(len(chosen), source, self.size, spec, draw)
        gains = augment.random_gain(len(chosen), learning.gain, draw)
        in_source = self.points[chosen] + (source - self.size) / 2
        points = augment.to_cells(augment.move_points(in_source, torch.linalg.inv(moves)))
        images = to_float(self.images, chosen, self.device)
        seen = augment.warp(images, send(moves, self.device), self.size)
        return augment.gain(seen, gains), send(points, self.device)

    def _losses(self, seen: Tensor, points: Tensor) -> Losses:
        with autocast(self.device, self.dtype):
            with torch.no_grad():
                stem = self.known.features(seen)[-1]
                known = self.known.maps(stem).float()
            maps = self.network.maps(stem).float()
        logarithms = (maps * BETA).flatten(2).log_softmax(dim=2)
        cells = expectation(logarithms.exp().view(maps.shape))
        inside = ((points >= -0.5) & (points <= maps.shape[-1] - 0.5)).all(dim=2)
        wanted = torch.where(inside[..., None], points, 0.0)
        target = gaussian_maps(wanted, maps.shape[-1], _SIGMA).flatten(2)
        target = target / target.sum(dim=2, keepdim=True)
        entropy = -(target * logarithms[:, self.landmarks :]).sum(dim=2)
        away = (cells[:, self.landmarks :] - wanted).norm(dim=2)
        least = inside.sum().clamp(min=1)
        held = distances(maps[:, : self.landmarks], known, _MAPS)
        return {
            "points": (away * inside).sum() / least,
            "maps": _MAPS * (entropy * inside).sum() / least,
            "landmarks": _HOLD * torch.stack([*held.values()]).sum(),
        }
