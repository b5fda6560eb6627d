"""Rows of an annotation tool -> a data set: the image, or the film's frame, that each one means.

Tools write down paths of the machine they ran on. A file is looked for below the folder, by as much
of the end of its path as tells it; a frame is read from its film where its picture is not there.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import walk
from lmk.runtime.images import IMAGE_SUFFIXES, Box, read_image
from lmk.runtime.sources import VIDEO_SUFFIXES
from lmk.train.datasets.layouts.folder import fingerprint
from lmk.train.datasets.layouts.listing import told
from lmk.train.datasets.layouts.video import FrameReader
from lmk.train.datasets.sample import Dataset, Sample, scheme_of

_NUMBER = re.compile(r"(\d+)$")  # of a frame, at the end of its picture's name
_ABOVE = 2  # folders above the one given in which films are looked for, as DeepLabCut's videos/


@dataclass(frozen=True)
class Marked:
    """One annotated object."""

    file: str  # path of its image or film, as the tool wrote it
    points: NDArray[np.float32]  # (P,2) pixels, ours; NaN where missing
    frame: int | None = None  # in a film
    box: Box | None = None
    split: str = ""
    size: tuple[int, int] | None = None  # (height, width) of the image whose pixels are meant


def dataset_of(
    layout: str, root: Path, sources: Sequence[Path], names: Sequence[str], rows: Sequence[Marked]
) -> Dataset:
    """The data set of what `sources`, files of annotations at or below the folder `root`, say.

    Objects without a point, those whose image is not there, or twice, are told in `problems`.
    Raises UserError when nothing is left.
    """
    found = _Files(root)
    samples: list[Sample] = []
    troubles = dict[str, tuple[int, str]]()
    frames: dict[Path, set[int]] = defaultdict(set)
    placed = [(row, *found.place(row)) for row in rows]
    for _, path, frame in placed:
        if path is not None and frame is not None:
            frames[path].add(frame)
    readers = {path: FrameReader(path, wanted) for path, wanted in frames.items()}
    once = set()
    for row, path, frame in placed:
        label = row.file if row.frame is None else f"{row.file}#{row.frame}"
        key = (path, frame, row.points.tobytes())
        trouble = ""
        if not np.isfinite(row.points).all(axis=1).any():
            trouble = "objects without a point"
        elif path is None:
            trouble = "annotated images that are absent"
        elif key in once:
            trouble = "objects that are there twice"
        if trouble:
            count, first = troubles.get(trouble, (0, label))
            troubles[trouble] = count + 1, first
            continue
        once.add(key)
        assert path is not None
        read: Callable[[], NDArray[np.uint8]] = partial(read_image, path, annotated=row.size)
        name = found.name(path)
        if frame is not None:
            read, name = partial(readers[path].read, frame), f"{name}#{frame}"
        samples.append(Sample(name, read, row.points, row.split, row.box))
    problems = told(troubles)
    if not samples:
        why = problems[0] if problems else "no object is annotated"
        raise UserError(f"{sources[0]}: got nothing that can be used ({why}); put the images there")
    used = {path for _, path, _ in placed if path is not None}
    made_of = fingerprint([*sources, *sorted(used)]) + layout
    identity = hashlib.sha256(made_of.encode()).hexdigest()
    return Dataset(
        root.resolve().name,
        tuple(samples),
        identity,
        scheme_of(names, sources[0]),
        problems=problems,
    )


class _Files:
    """The images and films that rows may mean."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._images = self._by_name(walk(root), IMAGE_SUFFIXES)
        self._films: dict[str, list[Path]] | None = None

    def name(self, path: Path) -> str:
        """How a file is called in messages: below the folder, where it is."""
        return str(path.relative_to(self._root) if path.is_relative_to(self._root) else path.name)

    def place(self, row: Marked) -> tuple[Path | None, int | None]:
        """The image of a row, or its film and the frame's number; None and None when neither is."""
        listed = PurePosixPath(row.file.replace("\\", "/"))
        if row.frame is None and (image := self._nearest(self._images, listed)):
            return image, None
        number = row.frame
        film = listed
        if number is None:  # labeled-data/FILM/img0123.png
            found = _NUMBER.search(listed.stem)
            number, film = int(found.group(1)) if found else None, listed.parent
        if number is None:
            return None, None
        path = self._nearest(self._all_films(), film, by_stem=True)
        return (path, number) if path else (None, None)

    def _all_films(self) -> dict[str, list[Path]]:
        if self._films is None:
            places = [self._root, *self._root.parents[:_ABOVE]]
            near = [path for place in places[1:] for path in place.glob("*")]
            near += [path for place in places for path in place.glob("videos/*")]
            self._films = self._by_name([*walk(self._root), *near], VIDEO_SUFFIXES, by_stem=True)
        return self._films

    @staticmethod
    def _by_name(
        paths: object, suffixes: frozenset[str], by_stem: bool = False
    ) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted({Path(each).resolve() for each in paths}):  # type: ignore[attr-defined]
            if path.suffix.lower() in suffixes:
                found[path.stem if by_stem else path.name].append(path)
        return found

    @staticmethod
    def _nearest(
        files: dict[str, list[Path]], listed: PurePosixPath, by_stem: bool = False
    ) -> Path | None:
        """The one whose path ends most like the one listed; None where two do."""
        stem = listed.name if listed.name in files or not by_stem else listed.stem
        here = files.get(stem, [])
        if len(here) < 2:
            return here[0] if here else None

        def alike(path: Path) -> int:
            pairs = zip(reversed(path.parts[:-1]), reversed(listed.parts[:-1]), strict=False)
            return next((n for n, (a, b) in enumerate(pairs) if a != b), len(listed.parts))

        best = sorted(here, key=alike, reverse=True)
        return best[0] if alike(best[0]) > alike(best[1]) else None
