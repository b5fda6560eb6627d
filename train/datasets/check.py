"""Folder and layout -> what is there, what is missing, what is corrupt."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lmk.runtime.files import atomic_path
from lmk.runtime.images import UnreadableImage, crop, square_around
from lmk.train.datasets.decoded import object_box
from lmk.train.datasets.layouts import count, told
from lmk.train.datasets.sample import Dataset, Sample
from lmk.train.split import HELD_OUT

# Annotations do lie a little outside, where a limb is cut off; pixels of another image, or
# coordinates in other units, lie far outside.
_FAR = 0.5  # of the longer side of the image
KNOWN_SPLITS = {"train", "training", *HELD_OUT}

_SHOWN, _COLUMNS, _SIDE = 48, 8, 128  # crops on a sheet; pixels of one
Crop = tuple[str, NDArray[np.uint8]]


class _Look(NamedTuple):
    """What is wrong with an image, as kind and example, and crops of its objects."""

    troubles: list[tuple[str, str]]
    crops: list[Crop]


@dataclass(frozen=True)
class CheckReport:
    """What a folder holds as a data set of one layout."""

    layout: str
    name: str
    images: int  # different ones
    samples: int  # objects: several an image in some layouts
    annotated: int  # samples with at least one point
    splits: Mapping[str, int]  # samples of each; "" for those without a split
    landmarks: int
    normaliser: str  # what errors are divided by
    decoded: bool  # whether every image was decoded
    problems: tuple[str, ...]  # what is missing or wrong, a line each
    notes: tuple[str, ...]  # what is left out by design, a line each
    crops: tuple[Crop, ...] = ()  # some, spread over the set, with the names of their images


def check(
    layout: str,
    dataset: Dataset,
    decode: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckReport:
    """Count what a data set, opened as `layout`, holds.

    With `decode` every image is decoded, so that corrupt ones are found, and points far outside
    their image. `progress` gets images done and images in all.
    """
    images: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        images.setdefault(sample.name, []).append(sample)
    number = min(len(dataset.samples), _SHOWN)
    places = np.linspace(0, len(dataset.samples) - 1, number).round().astype(int)
    shown = {id(dataset.samples[place]) for place in places}
    looks = list(_decode_all(images, shown, progress)) if decode else []
    found = (trouble for look in looks for trouble in look.troubles)
    # Names that say neither to learn from nor to keep apart: taken to learn from.
    splits = Counter(each.split for each in dataset.samples)
    unknown = [
        f"split '{name}' is learnt from; train, val and test are known"
        for name in sorted(splits.keys() - {""})
        if name.lower() not in KNOWN_SPLITS
    ]
    return CheckReport(
        layout=layout,
        name=dataset.name,
        images=len(images),
        samples=len(dataset.samples),
        annotated=sum(bool(np.isfinite(each.points).any()) for each in dataset.samples),
        splits=splits,
        landmarks=len(dataset.landmark_names),
        normaliser=dataset.scheme.normaliser.label,
        decoded=decode,
        problems=(*dataset.problems, *_without_length(dataset), *_grouped(found)),
        notes=(*dataset.notes, *unknown),
        crops=tuple(each for look in looks for each in look.crops),
    )


def format_check(report: CheckReport) -> str:
    """The report as lines to print; the last one is the verdict."""
    splits = ", ".join(f"{name or 'none'} {count:,}" for name, count in report.splits.items())
    rows = [
        ("layout", report.layout),
        ("images", f"{report.images:,}" + ("" if report.decoded else ", not decoded")),
        ("annotated", f"{report.annotated:,} of {report.samples:,} samples"),
        ("splits", splits),
    ]
    if report.landmarks:
        rows.append(("landmarks", f"{report.landmarks}, errors in % of the {report.normaliser}"))
    rows += [("note", note) for note in report.notes]
    rows += [("problem", problem) for problem in report.problems]
    total = len(report.problems)
    rows.append((report.name, f"{total} problem{'s' * (total > 1)}" if total else "all is well"))
    return "\n".join(f"{name:16} {value}" for name, value in rows)


def _without_length(dataset: Dataset) -> tuple[str, ...]:
    """Samples whose points are all there but give no length to divide errors by."""
    if not dataset.landmark_names:
        return ()
    points = np.stack([each.points for each in dataset.samples])
    given = np.array([each.length for each in dataset.samples], np.float32)
    normaliser = dataset.scheme.normaliser
    wrong = np.isfinite(points).all(axis=(1, 2)) & np.isnan(normaliser.lengths(points, given))
    kind = f"annotations whose {normaliser.label} length is zero or missing"
    return _grouped((kind, dataset.samples[i].name) for i in np.flatnonzero(wrong))


def write_sheet(crops: Sequence[Crop], path: Path) -> None:
    """The crops side by side, each with the end of its name, as PNG."""
    columns = min(_COLUMNS, len(crops))
    sheet = Image.new("RGB", (columns * _SIDE, -(-len(crops) // columns) * _SIDE))
    pen = ImageDraw.Draw(sheet)
    for place, (name, picture) in enumerate(crops):
        corner = (place % columns * _SIDE, place // columns * _SIDE)
        sheet.paste(Image.fromarray(picture), corner)
        text = name.encode("ascii", "replace").decode()[-20:]
        pen.text((corner[0] + 3, corner[1] + 1), text, stroke_width=1, stroke_fill="black")
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _decode_all(
    images: Mapping[str, list[Sample]], shown: set[int], progress: Callable[[int, int], None]
) -> Iterator[_Look]:
    """What the images are like, one by one; `shown` are the ids of samples to be cropped."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda samples: _look(samples, shown), images.values())
        for done, look in enumerate(looks, 1):
            yield look
            progress(done, len(images))


def _look(samples: list[Sample], shown: set[int]) -> _Look:
    try:
        image = samples[0].read()
    except UnreadableImage as error:
        return _Look([("images that cannot be read", str(error))], [])
    crops = []
    for sample in samples:
        if id(sample) in shown:
            box, scale = object_box(sample, image, "image")
            crops.append((sample.name, crop(image, square_around(box, scale), _SIDE)))
    height, width = image.shape[:2]
    last, far = np.array([width - 1, height - 1], np.float32), []
    for sample in samples:
        beyond = np.maximum(-sample.points, sample.points - last)
        if (beyond > _FAR * max(height, width)).any():  # NaN compares as not beyond
            far.append(("objects with a point far outside their image", sample.name))
    return _Look(far, crops)


def _grouped(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    counts: dict[str, tuple[int, str]] = {}
    for kind, example in found:
        count(counts, kind, example)
    return told(counts)
