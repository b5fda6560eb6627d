"""A name on the command line -> decoded images, with progress."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder
from lmk.runtime.terminal import progress
from lmk.train.datasets.decoded import CROP_MARGIN, CropMode, DecodedSet, decode
from lmk.train.datasets.find import open_dataset
from lmk.train.datasets.layouts import USUAL_FILMS, FilmOptions
from lmk.train.datasets.sample import Dataset, Normaliser, Sample, Scheme
from lmk.train.split import DRAWN, drawn_digest, is_held_out, split_indices

Specs = str | tuple[str, ...]  # what the user calls one data set, or several
log = logging.getLogger(__name__)


def load_decoded(
    spec: Specs,
    layout: str | None,
    input_size: int,
    crop: CropMode = "image",
    margin: float = CROP_MARGIN,
    films: FilmOptions = USUAL_FILMS,
    seed: int = 0,
) -> DecodedSet:
    """The decoded images of what the user calls `spec`, from the cache if they are there.

    Several sets are joined: see `join`, whose `seed` is that of the run that learns from them.
    """
    specs = (spec,) if isinstance(spec, str) else spec
    opened = [open_dataset(each, layout, films) for each in specs]
    dataset = join(opened, seed)
    if len({each.finding for each in opened}) > 1:
        log.warning(
            "%s: their objects were found in different ways, so what is known of some alone (what "
            "is beside the object, when frames are) is not used, and `lmk detect` looks in whole "
            "frames unless --roi says otherwise",
            dataset.name,
        )
    for problem in dataset.problems:
        log.warning("%s: left out, %s", dataset.name, problem)
    with progress(f"decoding {dataset.name}") as report:
        return decode(dataset, input_size, crop, cache_folder(), report, margin)


def join(datasets: Sequence[Dataset], seed: int = 0) -> Dataset:
    """One data set of all samples; a landmark that a set does not annotate is missing (NaN) there.

    Landmarks of one name are one landmark. Errors of each image are divided by what its own set
    divides by. Mirror twins are known only if every set knows its own. Of a set without splits the
    tenth is kept to judge by that a run of `seed` on it alone would keep. Raises UserError for the
    same images twice, and for two films of one name.
    """
    if len(datasets) == 1:
        return datasets[0]
    _check_different(datasets)
    datasets = [each if _has_held_out(each) else _with_held_out(each, seed) for each in datasets]
    names = tuple(dict.fromkeys(name for each in datasets for name in each.landmark_names))
    labels = dict.fromkeys(each.scheme.normaliser.label for each in datasets)
    findings = {each.finding for each in datasets}
    return Dataset(
        name="+".join(each.name for each in datasets),
        samples=tuple(
            _spread(sample, each.scheme, names) for each in datasets for sample in each.samples
        ),
        fingerprint=hashlib.sha256("\n".join(d.fingerprint for d in datasets).encode()).hexdigest(),
        scheme=Scheme(names, Normaliser(" or ".join(labels), "sample"), _flips(datasets, names)),
        problems=tuple(problem for each in datasets for problem in each.problems),
        notes=tuple(note for each in datasets for note in each.notes),
        finding=findings.pop() if len(findings) == 1 else None,
        drawn={name: digest for each in datasets for name, digest in each.drawn.items()},
    )


def _check_different(datasets: Sequence[Dataset]) -> None:
    for number, each in enumerate(datasets):
        for other in datasets[:number]:
            if each.fingerprint == other.fingerprint:
                raise UserError(
                    f"--data: got {each.name} twice, expected different images to join; leave one "
                    "out"
                )
            if same := _films(each) & _films(other):
                raise UserError(
                    f"--data: got two films called {min(same)}, expected different names; rename "
                    "one"
                )


def _films(dataset: Dataset) -> set[str]:
    timed = (sample for sample in dataset.samples if math.isfinite(sample.time_s))
    return {sample.name.rpartition("#")[0] for sample in timed}


def _has_held_out(dataset: Dataset) -> bool:
    return any(is_held_out(sample.split) for sample in dataset.samples)


def _with_held_out(dataset: Dataset, seed: int) -> Dataset:
    """The same with a tenth as a validation split."""
    splits = tuple(sample.split for sample in dataset.samples)
    chosen = set(split_indices(splits, seed)[1].tolist())
    digest = drawn_digest([sample.name for sample in dataset.samples], splits, seed)
    samples = [
        replace(sample, split=DRAWN) if number in chosen else sample
        for number, sample in enumerate(dataset.samples)
    ]
    kept = f"{dataset.fingerprint} with a tenth held out, seed {seed}"
    drawn = {dataset.name: digest} if digest else {}
    return replace(dataset, samples=tuple(samples), fingerprint=kept, drawn=drawn)


def _spread(sample: Sample, scheme: Scheme, names: tuple[str, ...]) -> Sample:
    """The sample with a place for every landmark, and its own length to divide errors by."""
    points: NDArray[np.float32] = np.full((len(names), 2), np.nan, np.float32)
    points[[names.index(name) for name in scheme.names]] = sample.points
    given = np.array([sample.length], np.float32)
    length = scheme.normaliser.lengths(sample.points[None], given)[0]
    return replace(sample, points=points, length=float(length))


def _flips(datasets: Sequence[Dataset], names: tuple[str, ...]) -> tuple[int, ...] | None:
    twins: dict[str, str] = {}
    for each in datasets:
        if each.scheme.flips is None:
            return None
        own = each.scheme.names
        twins |= {own[i]: own[twin] for i, twin in enumerate(each.scheme.flips)}
    return tuple(names.index(twins[name]) for name in names)
