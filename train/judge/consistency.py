"""Network and images -> landmarks, and how well they move with the image (paper, sec. 4)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmk.runtime.errors import UserError
from lmk.train import augment
from lmk.train.config import EvaluateConfig
from lmk.train.datasets import DecodedSet, PointArray
from lmk.train.device import pick_device, to_float
from lmk.train.draws import generator
from lmk.train.network import LandmarkNetwork, find_given
from lmk.train.split import Indices

TURNS = (90, 180)  # degrees, beyond what landmarks are steadied by
_STREAM = 3  # of the random numbers: training has its own


@dataclass(frozen=True)
class Views:
    """The same N images under V transforms, of which the first changes nothing."""

    images: NDArray[np.uint8]  # (V,N,S,S,3) RGB
    found: PointArray  # (V,N,K,2) landmarks in pixels of the view
    expected: PointArray  # (V,N,K,2) where those of view 0 have gone, in pixels of the view

    @property
    def errors(self) -> PointArray:
        """Distances (V,N,K) in pixels from found to expected; NaN where that is out of sight."""
        return consistency_errors(self.found, self.expected, self.images.shape[2])


def views(
    model: LandmarkNetwork,
    data: DecodedSet,
    indices: Indices,
    config: EvaluateConfig,
    views: int = 1,
) -> Views:
    """See the images `indices` of `data` as they are and under `views` random similarities.

    So V is 1 + `views`. The transforms depend on `config.seed`, the index of the image and the
    number of the view alone: every model sees the same. Raises UserError for a device that is not
    there.
    """
    size = model.config.input_size
    moves = [transforms(indices, size, config, view) for view in range(1 + views)]
    return _seen(model, data, indices, config, moves)


def turned(
    model: LandmarkNetwork, data: DecodedSet, indices: Indices, config: EvaluateConfig
) -> Views:
    """See the images `indices` of `data` as they are and turned by 90 and by 180 degrees: V is 3.

    Raises UserError for a device that is not there.
    """
    size = model.config.input_size
    quarters = augment.turns(torch.deg2rad(torch.tensor(TURNS)), size)
    moves = [move.expand(len(indices), 3, 3) for move in quarters]
    return _seen(model, data, indices, config, [None, *moves])


def righted(
    model: LandmarkNetwork, data: DecodedSet, indices: Indices, config: EvaluateConfig
) -> Views:
    """See the images `indices` of `data` as they are and turned alike, by their landmarks: V is 2.

    Most heads are up then, as far as headings are known; one alone is by the way that an object
    moves, and so may be wrong. Raises UserError for a device that is not there.
    """
    found = views(model, data, indices, config, 0).found[0]
    shapes = found - found.mean(axis=1, keepdims=True)  # (N,K,2)
    places = shapes[..., 0] + 1j * shapes[..., 1]
    onto_first = np.angle((places.conj() * places[0]).sum(axis=1))
    headings = np.full(len(indices), np.nan) if data.headings is None else data.headings[indices]
    heads = np.exp(1j * (headings + onto_first))  # once all are turned as the first is
    mean = heads[np.isfinite(heads)].sum()
    up = -np.pi / 2 - np.angle(mean) if mean else 0.0
    turns = augment.turns(torch.from_numpy(onto_first + up), model.config.input_size)
    return _seen(model, data, indices, config, [None, turns])


def _seen(
    model: LandmarkNetwork,
    data: DecodedSet,
    indices: Indices,
    config: EvaluateConfig,
    moves: Sequence[Tensor | None],
) -> Views:
    """See images under each of `moves`, of which the first is None."""
    ready, size = prepared(model, config), model.config.input_size
    images = np.empty((len(moves), len(indices), size, size, 3), np.uint8)
    found, expected = [], []
    for move, into in zip(moves, images, strict=True):
        found.append(find_landmarks(ready, data, indices, config.batch, move, into))
        expected.append(moved(found[0], move))
    return Views(images, np.stack(found), np.stack(expected))


def prepared(model: LandmarkNetwork, config: EvaluateConfig) -> LandmarkNetwork:
    """A copy of `model` to measure: on the device, batch-norm as `config` says.

    Raises UserError for a device that is not there.
    """
    device = pick_device(config.device)
    ready = copy.deepcopy(model).eval()
    ready.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.batch_norm == "batch":
        for module in ready.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
    return ready


def transforms(indices: Indices, size: int, config: EvaluateConfig, view: int = 1) -> Tensor | None:
    """Random similarities (N,3,3) of the crops of images `indices`, as `augment` has them.

    None for view 0, which is the image as it is.
    """
    if not view:
        return None
    spec = augment.Similarity(config.rotation, config.scale, config.shift)
    return torch.cat(
        [
            # One at a time, so that neither the batch nor the choice of images matters.
            augment.random_similarity(
                1, size, size, spec, generator(config.seed, _STREAM, int(index), view)
            )
            for index in indices
        ]
    )


def moved(points: PointArray, moves: Tensor | None) -> PointArray:
    """Points (N,K,2) in pixels of crops -> where they are in the views that `moves` give."""
    if moves is None:
        return points
    return augment.move_points(torch.from_numpy(points), torch.linalg.inv(moves)).numpy()


@torch.inference_mode()
def find_landmarks(
    model: LandmarkNetwork,
    data: DecodedSet,
    indices: Indices,
    batch: int = 32,
    moves: Tensor | None = None,
    into: NDArray[np.uint8] | None = None,
) -> PointArray:
    """Landmarks (N,K,2) in pixels of the central crops, seen through `moves` (N,3,3) if given.

    The model is taken as it is: `prepared` sets device and batch-norm. `into` (N,S,S,3) receives
    the crops that the network has seen. Raises UserError for a lone image that is to be normalised
    by its batch.
    """
    if len(indices) == 1 and any(module.training for module in model.modules()):
        raise UserError(
            "--batch-norm batch: got 1 image, expected 2 or more to take statistics of; "
            "use --batch-norm eval"
        )
    parts = max(1, math.ceil(len(indices) / batch))  # even ones: statistics of few are poor
    found = []
    for part in np.array_split(np.arange(len(indices)), parts):
        crops = _crops(model, data, indices[part], None if moves is None else moves[part])
        found.append(find_given(model, crops)[0].cpu().numpy())
        if into is not None:
            into[part] = (crops * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return np.concatenate(found)


def _crops(
    model: LandmarkNetwork, data: DecodedSet, indices: Indices, moves: Tensor | None
) -> Tensor:
    """What the network sees of some images: float (B,3,S,S) in [0, 1]."""
    device = next(model.parameters()).device
    size, source = model.config.input_size, data.images.shape[1]
    if moves is None:  # no pixel changes, so nothing needs to be sampled
        margin = (source - size) // 2
        cut = data.images[indices, margin : margin + size, margin : margin + size]
        return to_float(torch.from_numpy(cut), torch.arange(len(cut)), device)
    images = to_float(torch.from_numpy(data.images), torch.from_numpy(indices), device)
    crops = augment.warp(images, augment.centred(len(indices), source, size) @ moves, size)
    return crops.contiguous(memory_format=torch.channels_last)  # sampling has undone it


def consistency_errors(found: PointArray, expected: PointArray, size: int) -> PointArray:
    """Distances (…,K) in pixels from found (…,K,2) to expected points.

    NaN where the expected point is not in the crop of `size` pixels, hence cannot be found.
    """
    inside = ((expected > -0.5) & (expected < size - 0.5)).all(axis=-1)
    return np.where(inside, np.linalg.norm(found - expected, axis=-1), np.nan).astype(np.float32)


def following(still: PointArray, found: PointArray, expected: PointArray) -> float | None:
    """How far landmarks (N,K,2) move in proportion to how far the image has moved them.

    1 for a perfect detector, 0 for one that says the same whatever it is shown: the slope of the
    displacements found over those expected. None where nothing was to move.
    """
    should, does = (expected - still).ravel(), (found - still).ravel()
    power = float(should @ should)
    return float(does @ should) / power if power > 1e-6 * len(should) else None
