"""A name on the command line -> decoded images, with progress."""

from __future__ import annotations

import logging

from lmk.runtime.files import cache_folder
from lmk.runtime.report import progress
from lmk.train.config import RunConfig
from lmk.train.datasets.decoded import CROP_MARGIN, CropMode, DecodedSet, decode
from lmk.train.datasets.find import open_dataset
from lmk.train.datasets.join import join
from lmk.train.device import pick_device, pick_dtype

Specs = str | tuple[str, ...]  # what the user calls one data set, or several
log = logging.getLogger(__name__)


def training_set(data: Specs, layout: str | None, crop: CropMode, config: RunConfig) -> DecodedSet:
    """The decoded images for a run; a device that is not there is told before they are decoded."""
    pick_dtype(config.dtype, pick_device(config.device))
    return load_decoded(data, layout, config.input_size, crop)


def load_decoded(
    spec: Specs,
    layout: str | None,
    input_size: int,
    crop: CropMode = "image",
    margin: float = CROP_MARGIN,
) -> DecodedSet:
    """The decoded images of what the user calls `spec`, from the cache if they are there.

    Several sets are joined: see `join`.
    """
    specs = (spec,) if isinstance(spec, str) else spec
    dataset = join([open_dataset(each, layout) for each in specs])
    for problem in dataset.problems:
        log.warning("%s: left out, %s", dataset.name, problem)
    with progress(f"decoding {dataset.name}") as report:
        return decode(dataset, input_size, crop, cache_folder(), report, margin)
