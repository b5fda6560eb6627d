"""Pack and its images -> what detection tells its objects by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmk.runtime.finder import Finder
from lmk.runtime.images import Box
from lmk.runtime.model import Contract, Reading, default_names
from lmk.runtime.regions import Acceptance, Seen, accept, see
from lmk.runtime.runners import Runner
from lmk.train.config import EvaluateConfig
from lmk.train.datasets import DecodedSet
from lmk.train.device import to_float
from lmk.train.judge.consistency import prepared
from lmk.train.judge.evaluation import spread_over
from lmk.train.network import LandmarkNetwork, find
from lmk.train.split import Indices

_IMAGES = 32
_PLACES = 8  # in a run of the network
_PART = 0.45  # of a cached image, on a side: a corner, which misses the object or holds some of it


def measure_acceptance(
    model: LandmarkNetwork, data: DecodedSet, held_out: Indices, device: str = "auto"
) -> Acceptance | None:
    """What tells the objects of `data` from other parts of its pictures, by what `model` finds.

    Both are looked at as the search of `lmk detect` does. Of the images that were held out, where
    those are enough, else of all; None where there are too few. Raises UserError for a device that
    is not there.
    """
    chosen = held_out if len(held_out) >= _IMAGES // 4 else np.arange(len(data.images))
    finder = Finder(_Eager(prepared(model, EvaluateConfig(device=device)), data.crop_scale))
    size, side = data.images.shape[1], model.config.input_size
    part, object_side = _PART * size / data.crop_scale, side / data.crop_scale
    middle, corners = (size - object_side) / 2, ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
    objects, others = [], []  # images, and the squares in them
    for number, index in enumerate(spread_over(chosen, _IMAGES)):
        image = np.asarray(data.images[index])
        objects.append((image, (middle, middle, object_side, object_side)))
        for right, down in corners[2 * (number % 2) :][:2]:
            x, y = (
                (size - _PART * size) * each + (_PART * size - part) / 2 for each in (right, down)
            )
            others.append((image, (x, y, part, part)))

    def seen(places: list[tuple[NDArray[np.uint8], Box]]) -> list[Seen]:
        parts = (places[start : start + _PLACES] for start in range(0, len(places), _PLACES))
        return [one for part in parts for one in see(finder, *zip(*part, strict=True))]

    return accept(seen(objects), seen(others))


class _Eager(Runner):
    """The network as it was trained."""

    def __init__(self, model: LandmarkNetwork, crop_scale: float) -> None:
        count = model.config.num_landmarks
        self._model, self.name = model, "eager"
        self._device = next(model.parameters()).device
        self.contract = Contract(
            "", count, model.config.input_size, "fp32", "", "", default_names(count), crop_scale
        )

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8] | Any) -> Reading:
        pixels = torch.from_numpy(crops)
        found = find(self._model, to_float(pixels, torch.arange(len(crops)), self._device))
        return found[0].cpu().numpy(), found[1].cpu().numpy()

    def close(self) -> None:
        """Nothing to free."""
