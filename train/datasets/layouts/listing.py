"""What lists name and what folders hold -> a data set, and a line for each kind of trouble."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular
from lmk.runtime.images import IMAGE_SUFFIXES, Box, read_image
from lmk.train.datasets.layouts.folder import NO_POINTS, fingerprint
from lmk.train.datasets.sample import NO_SCHEME, Dataset, Sample, Scheme

_EDGE = 65536  # bytes looked at from either end


class Listing:
    """A data set in the making: takes the samples that are whole and counts what is not.

    Names of files are relative to `base`, with "/", and name the samples.
    """

    def __init__(self, layout: str, base: Path, scheme: Scheme = NO_SCHEME) -> None:
        self.base = base
        self.scheme = scheme
        self.files: dict[str, tuple[int, int]] = {}  # name -> size, modification time
        self.samples: dict[str, Sample] = {}
        self._layout = layout
        self._sources: list[Path] = []
        self._problems: dict[str, tuple[int, str]] = {}  # kind -> count, first example
        self._notes: dict[str, tuple[int, str]] = {}

    def scan(
        self, folder: str = "", suffixes: Iterable[str] = IMAGE_SUFFIXES, deep: bool = False
    ) -> list[str]:
        """Names of the files ending in one of `suffixes` in `base`/`folder`, sorted.

        Each folder is listed once, without opening a file; hidden files and folders are passed
        over, absent folders are empty.
        """
        found = dict(_walk(self.base, folder, frozenset(suffixes), deep))
        self.files.update(found)
        return sorted(found)

    def use(self, source: Path) -> Path:
        """Let the fingerprint follow `source`, an annotation file."""
        self._sources.append(source)
        return source

    def lines(self, source: Path) -> list[str]:
        """The lines of a text file, stripped; raises UserError if it cannot be read."""
        try:
            with open_regular(self.use(source)) as file:
                text = file.read().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source}: cannot be read ({error}); get the file again") from error
        return [line.strip() for line in text.splitlines()]

    def table(
        self, source: Path, columns: int, skip: int = 0
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Names (N) and numbers (N,columns) of a text file, after `skip` lines of header.

        A line is a name, which may hold spaces, and the numbers. Other lines are counted and left
        out, empty ones passed over. Raises UserError as `lines`.
        """
        names: list[str] = []
        numbers: list[list[float]] = []
        for index, line in enumerate(self.lines(source)[skip:], skip + 1):
            if not line:
                continue
            name, *cells = line.rsplit(maxsplit=columns)
            try:
                if len(cells) != columns:
                    raise ValueError
                numbers.append(list(map(float, cells)))
            except ValueError:
                kind = f"lines of {source.name} that are not a name and {columns} numbers"
                self.leave_out(kind, f"line {index}")
            else:
                names.append(name)
        return names, np.array(numbers, np.float64).reshape(len(names), columns)

    def leave_out(self, kind: str, example: str) -> None:
        """Count one more of a kind, in the plural, that is missing or wrong."""
        count(self._problems, kind, example)

    def note(self, kind: str, example: str) -> None:
        """Count one more of a kind, in the plural, that is left out by design."""
        count(self._notes, kind, example)

    def take_each(
        self,
        images: Iterable[str],
        annotation_of: Callable[[str], str],
        read_points: Callable[[Path], NDArray[np.floating]],
        split: str,
        box: Box | None = None,
    ) -> None:
        """`take` those of `images` whose annotation can be read; the others are counted.

        `read_points` may raise UserError, or OSError or ValueError without the name of the file.
        """
        names: list[str] = []
        points: list[NDArray[np.floating]] = []
        for name in images:
            annotation = annotation_of(name)
            if annotation not in self.files:
                self.leave_out("images without points", name)
                continue
            try:
                points.append(read_points(self.base / annotation))
            except UserError as error:
                self.leave_out("points that cannot be read", str(error))
            except (OSError, ValueError) as error:
                self.leave_out("points that cannot be read", f"{annotation}: {error}")
            else:
                names.append(name)
        shape = (-1, len(self.scheme.names), 2)
        self.take(names, np.array(points, np.float32).reshape(shape), split, box)

    def take(
        self,
        names: Sequence[str],
        points: NDArray[np.floating] | None = None,
        split: str | Sequence[str] = "",
        box: Box | None = None,
    ) -> None:
        """Add samples; `points` (N,P,2) are image pixels, None for unlabelled images.

        Left out and counted: what is listed twice, images that are absent, points that are not
        finite and those whose normaliser is zero. Without labels images are turned upright.
        """
        if points is None:
            points = np.broadcast_to(NO_POINTS, (len(names), 0, 2))
        points = points.astype(np.float32)
        splits = [split] * len(names) if isinstance(split, str) else split
        troubles = self._troubles(points)
        upright = not self.scheme.names
        for name, row, part, trouble in zip(names, points, splits, troubles, strict=True):
            if name in self.samples:
                trouble = "images listed more than once"
            elif name not in self.files:
                trouble = "images listed but absent"
            if trouble:
                self.leave_out(trouble, name)
            else:
                read = partial(read_image, self.base / name, upright)
                self.samples[name] = Sample(name, read, row, part, box)

    def dataset(self, name: str) -> Dataset:
        """What was taken; raises UserError when that is nothing."""
        problems = told(self._problems)
        if not self.samples:
            reason = problems[0] if problems else "it holds no image"
            raise UserError(
                f"{self.base}: got nothing that can be used, expected the images of layout "
                f"{self._layout}; {reason}"
            )
        samples, key = tuple(self.samples.values()), self._fingerprint()
        return Dataset(name, samples, key, self.scheme, problems, told(self._notes))

    def _troubles(self, points: NDArray[np.float32]) -> list[str]:
        if not self.scheme.names:
            return [""] * len(points)
        finite = np.logical_and.reduce(np.isfinite(points), axis=(1, 2))
        normaliser = self.scheme.normaliser
        measured = np.isfinite(normaliser.lengths(points))
        zero = f"annotations whose {normaliser.label} length is zero"
        return [
            ("" if long else zero) if good else "annotations that are not finite"
            for good, long in zip(finite, measured, strict=True)
        ]

    def _fingerprint(self) -> str:
        """As `folder.fingerprint`, from the sizes and times that `scan` has seen anyway."""
        sha = hashlib.sha256(f"{self._layout} {self.base.resolve()}\n".encode())
        sha.update(fingerprint(self._sources).encode())
        for name, stamp in sorted(self.files.items()):
            sha.update(f"{name}\0{stamp}\n".encode("utf-8", "surrogateescape"))
        return sha.hexdigest()


def count(found: dict[str, tuple[int, str]], kind: str, example: str) -> None:
    """Put one more of a kind into `found`, which keeps how many there are, and the first."""
    number, first = found.get(kind, (0, example))
    found[kind] = number + 1, first


def told(found: dict[str, tuple[int, str]]) -> tuple[str, ...]:
    """A line for each kind, in the order in which they turned up."""
    return tuple(
        f"{kind}: {count:,}, first {first}" if count > 1 else f"{kind}: {first}"
        for kind, (count, first) in found.items()
    )


def _walk(
    base: Path, folder: str, suffixes: frozenset[str], deep: bool, above: tuple[str, ...] = ()
) -> Iterable[tuple[str, tuple[int, int]]]:
    """Names under every path that leads to them, as lists may use any; links run in no circle."""
    real = os.path.realpath(base / folder)
    if real in above:
        return
    with contextlib.suppress(OSError), os.scandir(base / folder) as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):  # also the shadows that macOS leaves: ._000001.jpg
                continue
            if os.path.splitext(entry.name)[1].lower() in suffixes:
                with contextlib.suppress(OSError):  # a link to nowhere is as good as no file
                    if entry.is_file():
                        stat = entry.stat()
                        yield name, (stat.st_size, stat.st_mtime_ns)
            elif deep and entry.is_dir():
                yield from _walk(base, name, suffixes, deep, (*above, real))


def is_inside(name: str) -> bool:
    """Whether a listed path, relative to a folder, can be one and stays in it."""
    return (
        "\0" not in name
        and not os.path.isabs(name)
        and os.path.normpath(name).split(os.sep)[0] != os.pardir
    )


def first_of(root: Path, *candidates: str) -> Path | None:
    """The first of `candidates`, paths relative to `root`, that exists."""
    return next((root / name for name in candidates if os.path.exists(root / name)), None)


def read_json(path: Path) -> Any:
    """What the file holds, a byte-order mark or not; raises UserError if it is no JSON."""
    try:
        with open_regular(path) as file:
            return json.loads(file.read().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: cannot be read as JSON ({reason}); get it again") from error


def edges(path: Path) -> str:
    """The first and last 64 KiB of the text, to tell a file's kind without reading hundreds of MB.

    "" if it cannot be read.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_EDGE)
            file.seek(max(len(head), path.stat().st_size - _EDGE))
            return (head + b"\n" + file.read(_EDGE)).decode("utf-8", "replace")
    except OSError:
        return ""
