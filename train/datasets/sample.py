"""What every data-set layout yields: samples, and the scheme of their points."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import Box
from lmk.runtime.model import gate
from lmk.runtime.regions import Finding

PointArray = NDArray[np.float32]


@dataclass(frozen=True)
class Normaliser:
    """The length (pixels) that errors of an image are divided by.

    `pair`: the distance between two landmarks; "sample": the data set gives it with each image
    (the head size of MPII); None: the square root of the area of the box of all landmarks.
    """

    label: str
    pair: tuple[int, int] | Literal["sample"] | None = None

    def lengths(self, points: PointArray, given: PointArray | None = None) -> PointArray:
        """Points (N,P,2), NaN where missing -> lengths (N,), NaN where they cannot be had.

        `given` (N,) are the lengths that came with the images, in the pixels of `points`.
        """
        if self.pair == "sample":
            lengths = np.full(len(points), np.nan) if given is None else np.asarray(given)
        elif self.pair is not None:
            first, second = self.pair
            lengths = np.linalg.norm(points[:, first] - points[:, second], axis=1)
        else:
            seen = np.isfinite(points).all(axis=2).sum(axis=1) >= 2
            extent = np.full((len(points), 2), np.nan, np.float32)
            if seen.any():  # numpy's extrema want a point, also of no image
                extent[seen] = np.nanmax(points[seen], axis=1) - np.nanmin(points[seen], axis=1)
            lengths = np.sqrt(extent[:, 0] * extent[:, 1])
        return np.where(lengths > 1e-3, lengths, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Scheme:
    """The landmarks of a data set."""

    names: tuple[str, ...]
    normaliser: Normaliser
    flips: tuple[int, ...] | None = None  # each landmark's mirror twin; None: not known


BOX = Normaliser("box")
_EARS = tuple(f"{side}_ear{i}" for side in "lr" for i in (1, 2, 3))
# Not by the numbers in the names: the twin of the left ear's first point is the right ear's last.
CAT = Scheme(
    ("l_eye", "r_eye", "mouth", *_EARS),
    Normaliser("inter-ocular", (0, 1)),
    (1, 0, 2, 8, 7, 6, 5, 4, 3),
)
NO_SCHEME = Scheme((), BOX)
_PAIRS = (
    ("torso", "l_shoulder", "r_hip"),  # PCK of the Leeds Sports Pose literature
    ("torso", "left_shoulder", "right_hip"),
    ("inter-ocular", "l_eye", "r_eye"),
    ("inter-ocular", "left_eye", "right_eye"),
)
# Errors of the whole body of a fly are nothing that the distance of its eyes could measure.
_OF_A_FACE = re.compile(
    r"((l|r|left|right)_)?(inner_|outer_)?"
    r"(eye|nose|mouth|ear|brow|eyebrow|lip|chin|jaw|cheek|pupil|forehead|face)(_?\w+)?",
    re.IGNORECASE,
)
_IBUG_NORMALISER = Normaliser("inter-ocular", (36, 45))  # outer eye corners
_IBUG_FLIPS = (  # jaw 0-16, brows 17-26, nose 27-30 and 31-35, eyes 36-47, lips 48-59 and 60-67
    *(*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1)),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
)


def scheme_of(names: Sequence[str], where: Path | str = "annotations") -> Scheme:
    """The scheme of a list of names: 68 are iBUG's, those of CAT are known.

    Otherwise the sides are read off names that begin with `l_` and `r_`, or `left_` and `right_`.
    Errors are divided by the torso (l_shoulder to r_hip), the inter-ocular distance where all
    landmarks are of a face, else the box. Raises UserError, which begins with `where` they stand,
    for names that no model may have.
    """
    names = tuple(names)
    if not names:
        return NO_SCHEME
    if not gate.NAMES.holds(names):
        wrong = [n for k, n in enumerate(names) if n in names[:k] or not gate.NAMES.holds([n])]
        raise UserError(
            f"{where}: got landmarks called {gate.short(wrong or names)}, expected "
            f"{gate.NAMES.words}; rename them"
        )
    if names == CAT.names:
        return CAT
    if len(names) == 68:
        return Scheme(names, _IBUG_NORMALISER, _IBUG_FLIPS)
    for label, first, second in _PAIRS:
        is_fit = label != "inter-ocular" or all(_OF_A_FACE.fullmatch(name) for name in names)
        if first in names and second in names and is_fit:
            pair = (names.index(first), names.index(second))
            return Scheme(names, Normaliser(label, pair), flips_by_name(names))
    return Scheme(names, BOX, flips_by_name(names))


def normalised_by(scheme: Scheme, asked: str | None) -> Scheme:
    """The scheme with errors divided by what the user asks for; None: as it is.

    asked: "box", or two of the landmarks, "A,B", whose distance it is. Raises UserError.
    """
    if asked is None:
        return scheme
    if asked == "box":
        return replace(scheme, normaliser=BOX)
    first, _, second = (part.strip() for part in asked.partition(","))
    if first == second or not {first, second} <= set(scheme.names):
        raise UserError(
            f"--normaliser: got '{asked}', expected box or two landmarks, A,B, of "
            f"{', '.join(scheme.names)}"
        )
    pair = scheme.names.index(first), scheme.names.index(second)
    return replace(scheme, normaliser=Normaliser(f"{first} to {second}", pair))


def flips_by_name(names: Sequence[str]) -> tuple[int, ...] | None:
    """Index of each landmark's mirror twin, from names `l_…`/`r_…` or `left_…`/`right_…`.

    None if no name has a side: then what a mirror image does to the points is not known.
    """
    twins = {"l_": "r_", "r_": "l_", "left_": "right_", "right_": "left_"}
    order = []
    for index, name in enumerate(names):
        side = next((s for s in twins if name.startswith(s)), None)
        twin = name if side is None else twins[side] + name[len(side) :]
        order.append(names.index(twin) if twin in names else index)
    return None if order == list(range(len(names))) else tuple(order)


@dataclass(frozen=True)
class Sample:
    """One object in one image, decoded when asked for."""

    name: str  # a path or an identifier that the user recognises
    read: Callable[[], NDArray[np.uint8]]  # HWC uint8 RGB; raises UnreadableImage
    points: NDArray[np.float32]  # (P,2) image pixels (x, y); NaN where missing; P = 0: no labels
    split: str = ""  # as the data set names it: train, val, test, …; "" where it has none
    box: Box | None = None  # of the object, where the data set gives one apart from the points
    length: float = float("nan")  # pixels that errors are divided by, if the scheme asks for it
    track: int | None = None  # of an object of a film: its number, the same in all frames
    time_s: float = float("nan")  # of a frame, from the start of its film
    heading: float | None = None  # of the object's head, radians from x towards y, where known
    mask: Callable[[], NDArray[np.bool_]] | None = None  # (H,W): which pixels are the object's


@dataclass(frozen=True)
class Dataset:
    """Samples of one category."""

    name: str
    samples: tuple[Sample, ...]
    fingerprint: str  # changes when the files change; keys the decoded cache
    scheme: Scheme = NO_SCHEME  # of the points
    problems: tuple[str, ...] = ()  # what is missing or wrong and was left out, a line each
    notes: tuple[str, ...] = ()  # what is left out by design or good to know, a line each
    finding: Finding | None = None  # how the boxes of films were found
    drawn: Mapping[str, str] = field(default_factory=dict)  # joined sets' `drawn_digest`, by name

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Of `points`; () for unlabelled data."""
        return self.scheme.names


@dataclass(frozen=True)
class Layout:
    """How one data set lies on the disk."""

    name: str  # of --layout
    looks_for: str  # what a folder must hold, in words, for error messages
    recognises: Callable[[Path], bool]  # cheap: a few names, or the ends of a file
    read: Callable[[Path], Dataset]  # of a folder that is recognised; raises UserError
    landmarks: tuple[str, ...] | Callable[[Path], tuple[str, ...]] = ()  # reading little

    def open(self, root: Path) -> Dataset:
        """The data set in `root`; raises UserError as `check` and `read` do."""
        self.check(root)
        return self.read(root)

    def check(self, root: Path) -> None:
        """Raise UserError, with what was looked for and what was found, for another folder."""
        if not self.recognises(root):
            raise mismatch(root, f"{self.looks_for} (layout {self.name})")

    def names(self, root: Path) -> tuple[str, ...]:
        """Of the annotated landmarks of the data set in `root`; () for unlabelled data."""
        return self.landmarks(root) if callable(self.landmarks) else self.landmarks


def mismatch(root: Path, looks_for: str) -> UserError:
    """The error of a folder that is not of a layout: what was looked for, what was found."""
    try:
        found = heapq.nsmallest(5, (entry.name for entry in os.scandir(root)))
    except OSError as error:
        found = [error.strerror or str(error)]
    return UserError(
        f"{root}: got {', '.join(found) or 'an empty folder'}, expected {looks_for}; "
        "check the folder and --layout"
    )
