"""Layout `video`: a film, a pattern of films, a folder of films or of films and images.

Frames are chosen, not dumped: spread over time and appearance, the same each time. What was chosen
is kept in the cache. Where boxes say where the objects are, each object in a chosen frame is a
sample; else the whole frame is one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder, printable, walk, write_bytes
from lmk.runtime.images import Box, UnreadableImage, crop, read_image, square_around
from lmk.runtime.model import workspace
from lmk.runtime.regions import Background, Boxes, Finding, finding_of, read_boxes, survey_film
from lmk.runtime.sources import (
    VIDEO_SUFFIXES,
    choose_frames,
    expand,
    fixed_part,
    is_pattern,
    look_into,
    open_source,
    small,
)
from lmk.runtime.terminal import progress
from lmk.train.datasets.layouts.folder import NO_POINTS, fingerprint
from lmk.train.datasets.layouts.listing import told
from lmk.train.datasets.sample import Dataset, Layout, Sample, mismatch

FRAMES = 2000
_LOOK_PX = 64  # side of the crops that are compared
_VERSION = 2  # of how frames are chosen
_NARROW = 0.9  # of the longer side of a box: what is beside it then fills some of its square crop
_BLOCKS = 30  # of time, of which every tenth is held out: neighbours are too much alike
# Frame number, time in s, the object's number, its box and heading in radians.
_Where = tuple[int, float, int | None, Box | None, float | None]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilmOptions:
    """What of films is learnt from."""

    frames: int = FRAMES  # at most so many, of all films together
    boxes: Path | None = None  # of their objects, a CSV or where `lmk find` has left FILM-boxes.csv


USUAL_FILMS = FilmOptions()
NO_FINDING = Finding()


@dataclass(frozen=True)
class _Choice:
    """What of a film is learnt from, and what of it could not be read, a line each."""

    where: Sequence[_Where]
    skipped: list[str]


def open_films(root: Path, options: FilmOptions = USUAL_FILMS) -> Dataset:
    """Chosen frames of the films that `root` is, matches or holds, and all images beside them.

    Boxes are those of the file in `options`, else those that `lmk find` has left for a film of that
    name, in the folder there or in runs/. The budget is shared evenly by the films. Films that
    cannot be read or, with boxes given, have none are told in `problems`. Raises UserError when
    nothing is left, a line on why.
    """
    films, images, unread = _contents(root)
    base = root if root.is_dir() else Path(os.path.commonpath([p.parent for p in films + images]))
    folder = options.boxes if options.boxes and options.boxes.is_dir() else workspace.RUNS
    file = options.boxes if folder is not options.boxes else None
    given = read_boxes(file) if file else None
    samples, sources, troubles, unboxed = [], [], dict[str, tuple[int, str]](), []
    findings, masks = set[Finding](), set[_Mask | None]()
    for number, film in enumerate(films):
        name = printable(str(film.relative_to(base)))
        left = folder / f"{film.stem}-boxes.csv"
        boxes = file or (left if left.is_file() else None)
        share = options.frames * (number + 1) // len(films) - options.frames * number // len(films)
        try:
            where = given or (read_boxes(boxes) if boxes else None)
            choice = _choice(film, max(share, 1), boxes, where)
        except UserError as error:
            if len(films) == 1 and not images:
                raise
            count, first = troubles.get("films that cannot be used", (0, str(error)))
            troubles["films that cannot be used"] = count + 1, first
            continue
        finding = finding_of(boxes) if boxes else NO_FINDING
        findings.add(finding)
        reader = FrameReader(film, {row[0] for row in choice.where}, finding)
        numbers = {number: n for n, number in enumerate(sorted(reader.wanted))}
        mask = _mask_of(finding, [row[3] for row in choice.where if row[3]])
        masks.add(mask)
        for index, time_s, track, box, heading in choice.where:
            block = _BLOCKS * numbers[index] // len(numbers)
            samples.append(
                Sample(
                    name=f"{name}#{index}",
                    read=partial(reader.read, index),
                    points=NO_POINTS,
                    split="val" if block % 10 == 5 else "train",
                    box=box,
                    track=track,
                    time_s=time_s,
                    heading=heading,
                    mask=partial(mask, reader, index, box) if box and mask else None,
                )
            )
        for line in choice.skipped:
            troubles[f"of {name}"] = 1, line
        sources += [film, boxes] if boxes else [film]
        if boxes is None:
            unboxed.append(film)
        elif not options.boxes:
            _logger.warning("%s: learnt from in the boxes of %s", film, boxes)
    if unboxed:
        others = f" and {len(unboxed) - 1} more" if len(unboxed) > 1 else ""
        _logger.warning(
            "%s%s: whole frames are learnt from; `lmk find %s` finds the object where it does not "
            "fill them", unboxed[0], others, unboxed[0],
        )  # fmt: skip
    for path in images:
        name = printable(str(path.relative_to(base)))
        samples.append(Sample(name, partial(read_image, path), NO_POINTS))
    problems = (*unread, *told(troubles))
    if not samples:
        raise UserError(f"{root}: got nothing that can be learnt from ({'; '.join(problems)})")
    chosen = [(s.name, s.track, s.box, s.heading, s.mask is not None) for s in samples]
    how = " in boxes" if FrameReader.box_mask in masks else ""
    made_of = f"{fingerprint([*sources, *images])} {chosen}{how}"
    named = fixed_part(str(root)) if is_pattern(str(root)) else root
    way = findings.pop() if len(findings) == 1 and not images else None
    name = printable(named.resolve().name)
    key = hashlib.sha256(made_of.encode()).hexdigest()
    return Dataset(name, tuple(samples), key, problems=problems, finding=way)


def _contents(root: Path) -> tuple[list[Path], list[Path], list[str]]:
    """Films, images, and lines on what else is there; UserError for a folder without films."""
    films, images, unread = list[Path](), list[Path](), list[str]()
    for spec in expand([str(root)]):
        if Path(spec).is_dir():
            found = look_into(Path(spec))
            images += found.images
            unread += found.told
        elif is_pattern(spec):
            with open_source(spec) as source:
                images += getattr(source, "paths", [])
                unread += source.skipped
        else:
            films.append(Path(spec))
    if not films and (root.is_dir() or not images):
        raise mismatch(root, f"{LAYOUT.looks_for} (layout {LAYOUT.name})")
    return films, images, unread


def _choice(film: Path, budget: int, boxes: Path | None, where: Boxes | None) -> _Choice:
    """What to learn from, as it was chosen before unless the film or its boxes have changed."""
    asked = f"{_VERSION} {film.resolve()} {budget} {boxes and boxes.resolve()}"
    kept = cache_folder() / "frames" / f"{hashlib.sha256(os.fsencode(asked)).hexdigest()[:20]}.json"
    made_of = fingerprint([film, boxes] if boxes else [film])
    if kept.exists():
        try:
            before = json.loads(kept.read_bytes())
            if before.pop("sha256") != _sha256(before):
                raise ValueError("not what was written")
            if before["made_of"] == made_of:
                rows = [
                    (int(n), float(time_s), track, box and tuple(box), heading)
                    for n, time_s, track, box, heading in before["where"]
                ]
                return _Choice(rows, before["skipped"])
            reason = "it or its boxes have changed" if boxes else "it has changed"
        except (
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            RecursionError,
        ) as error:
            reason = f"{kept} is damaged ({error})"
        _logger.warning("%s: %s; its frames are chosen anew", film, reason)
    choice = _choose(film, budget, boxes, where)
    written = {
        "film": str(film),
        "made_of": made_of,
        "where": choice.where,
        "skipped": choice.skipped,
    }
    write_bytes(kept, json.dumps(written | {"sha256": _sha256(written)}).encode())
    return choice


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _choose(film: Path, budget: int, boxes: Path | None, where: Boxes | None) -> _Choice:
    """Read the film to its end and choose; raises UserError where nothing can be taken."""
    label, seen, times = printable(film.name), 0, dict[int, float]()
    with open_source(film) as source, progress(f"choosing frames of {label}") as report:

        def frames() -> Iterator[Frame]:
            nonlocal seen
            for frame in source:
                seen += 1
                times[frame.index] = frame.time_s
                report(seen, source.num_frames)
                if where is None or where.targets(frame):
                    yield frame

        def look(frame: Frame) -> NDArray[np.uint8]:
            """The objects, averaged, or the whole frame: what is behind them matters less."""
            if where is None:
                return small(frame)
            squares = [square_around(target.box) for target in where.targets(frame)]
            crops = [crop(frame.image, square, _LOOK_PX) for square in squares]
            return small(replace(frame, image=np.mean(crops, axis=0).astype(np.uint8)))

        numbers, skipped = choose_frames(frames(), budget, look), source.skipped
    if not seen:
        raise UserError(f"{film}: got no frame that can be read; get the film again")
    if where is None:
        return _Choice([(n, times[n], None, None, None) for n in numbers], skipped)
    if not numbers:
        raise UserError(
            f"{film}: got no box in {boxes} for any of {seen} frames, expected some of source "
            f"{label}; `lmk find {film}` writes them"
        )
    nothing = np.zeros((1, 1, 3), np.uint8)  # boxes of a file depend on the frame's number alone
    rows = [(n, where.targets(Frame(label, n, 0.0, nothing))) for n in numbers]
    where_in = [
        (n, times[n], each.track, each.box, each.heading) for n, found in rows for each in found
    ]
    return _Choice(where_in, skipped)


class FrameReader:
    """Some frames of a film, for any thread: decoded in one pass if they are asked for in order."""

    def __init__(self, film: Path, wanted: set[int], finding: Finding = NO_FINDING) -> None:
        self._film, self.wanted, self._finding = film, wanted, finding
        self._lock = threading.Lock()
        self._frames: Iterator[Frame] | None = None
        self._next = 0
        self._kept: dict[int, NDArray[np.uint8]] = {}  # the last few: threads do not keep in line

    def read(self, index: int) -> NDArray[np.uint8]:
        """The frame of that number, HWC uint8 RGB; raises UnreadableImage."""
        with self._lock:
            if index not in self._kept:
                self._advance(index)
            if index not in self._kept:
                raise UnreadableImage(f"{self._film}: frame {index} cannot be read any more")
            return self._kept[index]

    def moving_mask(self, index: int, box: Box) -> NDArray[np.bool_]:
        """(H,W): which pixels of that frame are of the object in `box`, what hangs on included."""
        from scipy import ndimage

        image = self.read(index)
        with self._lock:
            background = self._background
        shrink = background.shrink
        moves = background.foreground(image)
        if moves is None:
            return np.zeros(image.shape[:2], bool)
        labels, _ = ndimage.label(moves, np.ones((3, 3)))
        x, y, w, h = (side / shrink for side in box)
        rows, columns = (
            slice(max(0, round(low + size / 4)), max(1, round(low + 3 * size / 4)))
            for low, size in ((y, h), (x, w))
        )
        inner = np.bincount(labels[rows, columns].ravel(), minlength=1)
        inner[0] = 0
        mine = labels == inner.argmax() if inner.any() else np.zeros_like(moves)
        whole = mine.repeat(shrink, 0).repeat(shrink, 1)
        height, width = image.shape[:2]
        short = ((0, max(0, height - len(whole))), (0, max(0, width - whole.shape[1])))
        return np.pad(whole, short, mode="edge")[:height, :width]

    def box_mask(self, index: int, box: Box) -> NDArray[np.bool_]:
        """(H,W): which pixels of that frame are in `box`."""
        inside = np.zeros(self.read(index).shape[:2], bool)
        x, y, w, h = box
        left, top, right, bottom = (max(0, round(side)) for side in (x, y, x + w, y + h))
        inside[top:bottom, left:right] = True
        return inside

    @functools.cached_property
    def _background(self) -> Background:
        return survey_film(self._film, self._finding.objects).background

    def _advance(self, index: int) -> None:
        if self._frames is None or index < self._next:
            self._frames = self._from(index)
        for frame in self._frames:
            self._next = frame.index + 1
            if frame.index in self.wanted:
                self._kept[frame.index] = frame.image
                if len(self._kept) > 4 + (os.cpu_count() or 1):
                    del self._kept[next(iter(self._kept))]
            if frame.index >= index:
                break
        if self._next > max(self.wanted):
            self._frames = None  # closes the film

    def _from(self, index: int) -> Iterator[Frame]:
        with open_source(self._film) as source:
            if index:
                source.resume_after(index - 1)
            yield from source


_Mask = Callable[[FrameReader, int, Box], NDArray[np.bool_]]


def _mask_of(finding: Finding, boxes: Sequence[Box]) -> _Mask | None:
    """How it is known which pixels are an object's: it moves, or it is narrower than its crop.

    Boxes as of a person or a detector are about the object, but square ones say nothing: they are
    all of the crop. None: it is not known.
    """
    if finding.way == "motion":
        return FrameReader.moving_mask
    narrow = any(min(w, h) < _NARROW * max(w, h) for _, _, w, h in boxes)
    return FrameReader.box_mask if narrow else None


def _recognises(root: Path) -> bool:
    if not root.is_dir():
        return True
    return any(path.suffix.lower() in VIDEO_SUFFIXES for path in walk(root))


LAYOUT = Layout("video", "films, or films and images, without labels", _recognises, open_films)
