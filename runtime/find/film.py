"""A film -> boxes.csv and a picture of what was found: what `--roi boxes.csv` takes."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lmk.runtime.errors import UserError
from lmk.runtime.files import as_cell, atomic_path
from lmk.runtime.outputs import colour
from lmk.runtime.regions import (
    BoxDetector,
    DetectorRegion,
    Finding,
    PatchRegion,
    Region,
    Shown,
    parse_roi,
    survey_film,
)
from lmk.runtime.sources import open_source
from lmk.runtime.terminal import Report

COLUMNS = ("source", "frame", "track", "x", "y", "w", "h", "heading")
_TILES = 12
_TILE_PX = 480  # longer side


@dataclass(frozen=True)
class Boxed:
    """What was written about a film."""

    frames: int
    seen: dict[int, int]  # frames in which each object was, by its number
    skipped: list[str]  # see Source.skipped

    @property
    def lines(self) -> list[str]:
        """What it comes to, in words."""
        shares = {track: f"{count / self.frames:.1%}" for track, count in self.seen.items()}
        found = [f"object {n}: in {share} of {self.frames} frames" for n, share in shares.items()]
        return found + [f"skipped: {line}" for line in self.skipped]


def find_in_film(
    spec: Path | str,
    boxes: Path,
    picture: Path,
    way: str = "auto",
    start: str | None = None,
    objects: int | None = None,
    tell: Callable[[str], None] = lambda words: None,
    report: Report = lambda done, of: None,
    detector: BoxDetector | None = None,
) -> Boxed:
    """Find the objects of a film without a model; write their boxes in every frame, and a picture.

    way: "motion", what moves before a still camera; "auto", the same, but only where that is sure;
    "box", what `start` (as of `parse_roi`) gives in the first frame is followed. With a `detector`
    its boxes are taken, whatever the way. objects: how many
    there are; None: as many as most frames show. boxes: CSV, see `write_boxes`; beside it a note
    of how they were found, see `finding_of`. picture: PNG or
    JPEG; of motion written first, after some frames were looked at and whether or not it is sure,
    and once more when all are; `tell` is called with what was found in words. Raises UserError,
    with the cure.
    """
    finding = Finding("box" if way == "box" else "motion", objects)
    if detector is not None:
        finding = Finding("detector", objects, detector=detector.path.name)
        region: Region = DetectorRegion(detector)
    elif way == "box":
        if start is None:
            raise UserError("find: got box without a start, expected its place, x,y,w,h or a CSV")
        region = PatchRegion(parse_roi(start))
    else:
        found = survey_film(spec, objects)
        write_picture(found.shown(), picture)
        tell(found.words)
        if way == "auto":
            found.check()
        region = found.region()
    boxed, shown = write_boxes(region, spec, boxes, report)
    finding.write_beside(boxes)
    write_picture(shown, picture)
    return boxed


def write_boxes(
    region: Region, spec: Path | str, path: Path, report: Report = lambda done, of: None
) -> tuple[Boxed, list[Shown]]:
    """Where `region`, which needs no landmarks, has the objects of a film, as CSV.

    COLUMNS: frames from 0; pixels, edges; heading in degrees, clockwise from the right, empty where
    it is not known. Also returns frames spread over the film, with their boxes. Raises UserError
    when there is no box at all.
    """
    seen: Counter[int] = Counter()
    shown: list[Shown] = []
    frames, every = 0, 1
    with atomic_path(path) as temporary, open_source(spec) as source:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for frame in source:
                targets = region.targets(frame)
                for target in targets:
                    turn = target.heading
                    heading = "" if turn is None else f"{math.degrees(turn) % 360:.1f}"
                    box = (f"{value:.2f}" for value in target.box)
                    writer.writerow(
                        (as_cell(frame.source), frame.index, target.track, *box, heading)
                    )
                seen.update(target.track for target in targets)
                if frames % every == 0:
                    image = Image.fromarray(frame.image)
                    image.thumbnail((_TILE_PX, _TILE_PX))
                    scale = image.width / frame.size[1]
                    small = [
                        (scale * x, scale * y, scale * w, scale * h)
                        for x, y, w, h in (target.box for target in targets)
                    ]
                    shown.append((frame.index, np.asarray(image), small))
                if len(shown) == 2 * _TILES:
                    shown, every = shown[::2], 2 * every
                frames += 1
                report(frames, source.num_frames)
        if not seen:
            raise UserError(f"{spec}: got no object in {frames} frames; give boxes of your own")
    return Boxed(frames, dict(sorted(seen.items())), source.skipped), shown


def write_picture(shown: Sequence[Shown], path: Path) -> None:
    """Some of the frames, spread evenly, with their boxes, on a sheet, as PNG or JPEG."""
    places = np.unique(np.linspace(0, len(shown) - 1, _TILES).round().astype(int))
    height, width = shown[0][1].shape[:2]
    columns = min(4, len(places))
    sheet = Image.new("RGB", (columns * width, -(-len(places) // columns) * height))
    for place, (index, image, boxes) in enumerate(shown[place] for place in places):
        tile = Image.fromarray(np.ascontiguousarray(image))
        pen = ImageDraw.Draw(tile)
        for number, (x, y, w, h) in enumerate(boxes):
            pen.rectangle((x, y, x + w, y + h), outline=colour(number), width=2)
        pen.text((4, 2), str(index), fill=colour(0), stroke_width=1, stroke_fill="black")
        sheet.paste(tile, ((place % columns) * width, (place // columns) * height))
    with atomic_path(path) as temporary:
        sheet.save(temporary)
