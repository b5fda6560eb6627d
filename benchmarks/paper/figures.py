"""Packs and test images -> the paper's figures 2 and 3, and maps of where landmarks land."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lmk.benchmarks.paper.experiments import METHODS, PaperCategory, PaperRow
from lmk.benchmarks.paper.grids import name_of
from lmk.benchmarks.paper.jobs import decoded, read_evaluation
from lmk.benchmarks.paper.plan import EvaluationJob, JobPlan
from lmk.runtime.detection import Detection
from lmk.runtime.files import atomic_path
from lmk.runtime.images import whole
from lmk.runtime.outputs import colour, draw
from lmk.train.judge import REFERENCE, Views, spread_over, views
from lmk.train.network import load_pack
from lmk.train.split import split_indices

CAPTION = "comment"  # of a JPEG: what it shows
SIDE = 144  # pixels of a crop in a figure
TRANSFORMS = 5  # of each image in a consistency sheet
SHEET_IMAGES, GALLERY_IMAGES, GALLERY_COLUMNS = 3, 24, 8
MAP_IMAGES = 200
_LABEL_WIDTH, _TEXT = 156, 15  # pixels

Entry = tuple[PaperCategory, PaperRow, EvaluationJob]


def write(plan: JobPlan, folder: Path) -> list[Path]:
    """Draw what the finished evaluations of `plan` have to show, into figures/ of `folder`.

    A figure that is newer than its packs stays as it is. Returns the paths of all of them.
    """
    paths = []
    for table in plan.tables:
        made = [entry for entry in plan.of(table) if read_evaluation(entry[2]) is not None]
        by_method = all(row == PaperRow(row.method) for row in table.rows)
        for category, group in groupby(made, key=lambda entry: entry[0]):
            entries = list(group)
            plain = [entry for entry in entries if entry[1] == PaperRow(entry[1].method)]
            best = max(plain or entries, key=_rank)  # the paper's method where it is there
            stem = f"{category.adapted.label}-on-{category.test.label}.jpg"
            kind = "" if by_method else f"{table.name}-"
            jobs = {
                folder / "figures" / f"consistency-{kind}{stem}": (write_sheet, entries),
                folder / "figures" / f"map-{kind}{stem}": (write_map, entries),
                folder / "figures" / f"gallery-{stem}": (write_gallery, [best]),
            }
            for path, (picture, shown) in jobs.items():
                if path not in paths:
                    paths.append(path)
                    newest = max(job.output.stat().st_mtime for _, _, job in shown)
                    if not path.exists() or path.stat().st_mtime < newest:
                        picture(path, shown)
    return paths


def write_sheet(path: Path, entries: list[Entry]) -> None:
    """The same test images under the same transforms, a row a pack: the paper's Fig. 2."""
    seen = [_views(job, SHEET_IMAGES, TRANSFORMS) for _, _, job in entries]
    rows = []
    for index in range(seen[0].images.shape[1]):
        for (_, row, _), found in zip(entries, seen, strict=True):
            scale = REFERENCE / found.images.shape[2]
            error = scale * float(np.nanmean(found.errors[1:, index]))
            crops = [
                _marked(found.images[view, index], found.found[view, index])
                for view in range(len(found.images))
            ]
            label = f"{row.label}\n{error:.1f} px off"
            rows.append(np.concatenate([_text(label), *crops], axis=1))
        rows.append(np.full((12, rows[0].shape[1], 3), 255, np.uint8))
    caption = (
        f"{name_of(entries[0][0])}: test images as they are (first column) and under random "
        "similarities. A steady landmark keeps its place on the object; its colour is its number. "
        "Beside each row: mean distance from where the landmarks should have gone."
    )
    _save(path, np.concatenate(rows[:-1]), caption)


def write_gallery(path: Path, entries: list[Entry]) -> None:
    """Landmarks of one pack on many test images: the paper's Fig. 3."""
    ((category, row, job),) = entries
    found = _views(job, GALLERY_IMAGES, 0)
    crops = [_marked(*pair) for pair in zip(found.images[0], found.found[0], strict=True)]
    blank = np.full_like(crops[0], 255)
    crops += [blank] * (-len(crops) % min(GALLERY_COLUMNS, len(crops)))
    columns = min(GALLERY_COLUMNS, len(crops))
    rows = [np.concatenate(crops[i : i + columns], axis=1) for i in range(0, len(crops), columns)]
    caption = f"{name_of(category)}: test images, {row.label}, none chosen by hand"
    _save(path, np.concatenate(rows), caption)


def write_map(path: Path, entries: list[Entry]) -> None:
    """Where each landmark lands on many test images, over their mean: a column a pack."""
    columns = []
    for _, row, job in entries:
        found = _views(job, MAP_IMAGES, 0)
        mean = found.images[0].mean(axis=(0, 3)).astype(np.uint8)
        drawn = cloud(np.repeat(mean[..., None], 3, axis=2), found.found[0])
        columns.append(np.concatenate([_text(row.label, (2 * SIDE, 48)), drawn]))
    caption = (
        f"{name_of(entries[0][0])}: where landmarks land on {len(found.found[0])} test images, "
        "over the mean of their crops. A landmark that tells something is a cloud of its own."
    )
    _save(path, np.concatenate(columns, axis=1), caption)


def cloud(mean: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A crop (S,S,3), faded and enlarged to twice SIDE, with a dot for each of points (N,K,2)."""
    side = 2 * SIDE
    clear = ImageOps.autocontrast(Image.fromarray(mean))  # a mean of many images is nearly grey
    faded = clear.point(lambda value: value // 2 + 96)
    large = faded.resize((side, side), Image.Resampling.BICUBIC)
    dots = Image.new("RGBA", large.size)
    pen = ImageDraw.Draw(dots)
    for number, landmarks in enumerate((points + 0.5) * (side / len(mean))):
        order = np.roll(np.arange(len(landmarks)), number)  # no landmark is always on top
        for k in order:
            pen.circle(tuple(landmarks[k]), 2.5, fill=(*colour(int(k)), 170))
    return np.array(Image.alpha_composite(large.convert("RGBA"), dots).convert("RGB"))


def _rank(entry: Entry) -> int:
    return METHODS.index(entry[1].method) if entry[1].method in METHODS else -1


def _views(job: EvaluationJob, count: int, transforms: int) -> Views:
    """`count` test images, spread over the set, and as many random views of each."""
    model, header = load_pack(job.pack.config.output, job.pack.config.core)
    data = decoded(job.category.test, model.config.input_size, job.pack.crop)
    _, test = split_indices(data.splits, header["config"]["seed"])
    chosen = spread_over(test, count)
    config = replace(job.config, batch=min(count, job.config.batch))
    return views(model, data, chosen, config, transforms)


def _marked(image: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A crop (S,S,3) with its landmarks (K,2), enlarged to SIDE pixels."""
    factor = SIDE / image.shape[0]
    large = np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    moved = ((points + 0.5) * factor - 0.5).astype(np.float32)
    return draw(large, Detection(moved, np.ones(len(points), np.float32), whole(large)))


def _text(text: str, size: tuple[int, int] = (_LABEL_WIDTH, SIDE)) -> NDArray[np.uint8]:
    """Black on white, in an image of `size` = (width, height)."""
    image = Image.new("RGB", size, "white")
    place = (8, size[1] // 2)
    font = ImageFont.load_default(_TEXT)
    lines = text.replace(", ", ",\n")
    ImageDraw.Draw(image).multiline_text(place, lines, "black", font, anchor="lm", spacing=6)
    return np.array(image)


def _save(path: Path, image: NDArray[np.uint8], caption: str) -> None:
    # Photographs: a tenth of the bytes of a PNG, which the page would have to carry. The discs are
    # small and coloured, so colours are kept at full resolution.
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, quality=90, subsampling=0, comment=caption)
