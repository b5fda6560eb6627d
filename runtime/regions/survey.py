"""A film -> what moves in it: how many objects, of what size, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import Box
from lmk.runtime.regions.background import Background, learn_background, shrink_for, shrunk
from lmk.runtime.regions.moving import MARGIN, SMALLEST, Blob, MovingObjects, Usual, blobs
from lmk.runtime.sources import open_source, sample

_FRAMES = 40  # to twice as many are looked at
_ENOUGH_KEYS = 24  # key frames, which can be decoded alone, spread over a film
_FEWEST = 8  # frames from which anything can be told
# From when on it is not sure.
_MOST_UNKNOWN = 0.2  # of the frames that show no view seen often
_MOST_VIEWS = 3
_LEAST_SEEN = 0.5  # of the frames have an object
_LEAST_ALIKE = 0.6  # of the frames have about as many objects as is usual
_MOST_VARIED = 0.6  # deviation of the objects' lengths, of the usual one
_LARGEST = 0.5  # of the frame, on a side of it
_SMALLEST_PX = 4  # of the shrunk frame, an object's width
_LEAST_MOVED = 0.5  # deviation of its places, in its lengths
Shown = tuple[int, NDArray[np.uint8], list[Box]]  # frame number, HWC RGB shrunk, boxes in that


@dataclass(frozen=True)
class Look:
    """A frame that was looked at and what seems to move in it."""

    index: int
    picture: NDArray[np.uint8]  # (3,h,w), shrunk
    found: Sequence[Blob] | None  # in pixels of the frame itself; None: of no view


@dataclass(frozen=True)
class Survey:
    """What moves before a still camera, as some frames of a film show it."""

    title: str
    background: Background
    usual: Usual
    looks: Sequence[Look]
    doubts: Sequence[str]  # why it is not sure; none when it is

    @property
    def words(self) -> str:
        """What was found, in one line."""
        usual, lights = self.usual, len(self.background.views)
        objects = "1 object" if usual.count == 1 else f"{usual.count} objects"
        views = "" if lights == 1 else f", {lights} lights or scenes"
        return (
            f"{self.title}: {objects} of about {usual.length:.0f}×{usual.width:.0f} pixels before "
            f"a still camera{views}, in {len(self.looks)} frames of it"
        )

    def region(self, margin: float = MARGIN) -> MovingObjects:
        """What follows the objects through the film, from its first frame on."""
        return MovingObjects(self.background, self.usual, margin)

    def check(self) -> None:
        """Raises UserError with the cure when it is not sure what moves."""
        if self.doubts:
            raise UserError(
                f"{self.title}: got {'; '.join(self.doubts)}, expected objects that move before a "
                "still camera; give the object's box in a frame (--find box --start x,y,w,h), a "
                "detector (lmk detect --detector FILE.onnx), or boxes (--roi boxes.csv)"
            )

    def shown(self) -> list[Shown]:
        """The frames that were looked at, with a box about whatever is as big as an object."""
        shrink = self.background.shrink
        shown = []
        for look in self.looks:
            blobs = _objects(look.found, self.usual)[: self.usual.count]
            sides = [MARGIN * blob.length / shrink for blob in blobs]
            boxes = [
                (blob.x / shrink - side / 2, blob.y / shrink - side / 2, side, side)
                for blob, side in zip(blobs, sides, strict=True)
            ]
            shown.append((look.index, look.picture.transpose(1, 2, 0), boxes))
        return shown


def survey_film(spec: Path | str, objects: int | None = None) -> Survey:
    """Look at some frames of a film, its key frames where those are many.

    objects: how many there are; else what most frames have. Raises UserError when it cannot be
    read, is no film, or is live; what is doubtful about what was found stands in `doubts`.
    """
    with open_source(spec) as source:
        if source.is_live or source.size is None:
            what = "a live source" if source.is_live else "images"
            raise UserError(
                f"{spec}: got {what}, expected a film: motion is told from frames spread over it"
            )
        source.skim(_ENOUGH_KEYS)
        shrink = shrink_for(source.size)
        taken = sample(source, _FRAMES, lambda frame: (frame.index, shrunk(frame.image, shrink)))
        title = str(source.path)
    background = learn_background([picture for _, picture in taken], shrink)
    found = _look(taken, background, 3)
    usual = _usual(found, objects)
    opening = MovingObjects(background, usual).opening
    if opening > 3:
        found = _look(taken, background, opening)
        usual = _usual(found, objects)
    looks = [Look(index, image, each) for (index, image), each in zip(taken, found, strict=True)]
    doubts = _doubts(looks, background, usual)
    return Survey(title, background, usual, looks, doubts)


def _look(
    taken: Sequence[tuple[int, NDArray[np.uint8]]], background: Background, opening: int
) -> list[list[Blob] | None]:
    masks = [background.mask(picture, opening) for _, picture in taken]
    return [None if mask is None else blobs(mask, background.shrink) for mask in masks]


def _usual(found: Sequence[Sequence[Blob] | None], objects: int | None) -> Usual:
    """What most frames show; objects that touch make one blob, of more than the usual size."""
    ranked = [sorted(each, key=lambda blob: -blob.area) for each in found if each]
    biggest = [blob.area for each in ranked for blob in each[: objects or 1]]
    if not biggest:
        return Usual(objects or 1, 1.0, 1.0, 1.0)
    area = float(np.percentile(biggest, 50, method="lower"))  # of one that there is
    alike = [b for each in ranked for b in each if 0.5 * area <= b.area <= 1.5 * area]
    length, width, area = (
        float(np.median([getattr(blob, name) for blob in alike]))
        for name in ("length", "width", "area")
    )
    one = Usual(objects or 1, length, width, area)
    counts = Counter(count for each in ranked if (count := _count(each, one)))
    return one if objects or not counts else replace(one, count=counts.most_common(1)[0][0])


def _objects(found: Sequence[Blob] | None, usual: Usual) -> list[Blob]:
    """Those that are as big as an object, the biggest first."""
    big = [blob for blob in found or () if blob.area >= SMALLEST * usual.area]
    return sorted(big, key=lambda blob: -blob.area)


def _count(found: Sequence[Blob] | None, usual: Usual) -> int:
    return sum(max(1, round(blob.area / usual.area)) for blob in _objects(found, usual))


def _doubts(looks: Sequence[Look], background: Background, usual: Usual) -> list[str]:
    if len(looks) < _FEWEST:
        return [f"{len(looks)} frames"]
    known = [look for look in looks if look.found is not None]
    if len(known) < (1 - _MOST_UNKNOWN) * len(looks):
        share = 1 - len(known) / len(looks)
        return [f"a camera that moves, or cuts ({share:.0%} of the frames look like few others)"]
    seen = [objects for look in known if (objects := _objects(look.found, usual))]
    if len(seen) < _LEAST_SEEN * len(known):
        return [f"nothing that moves in {1 - len(seen) / len(known):.0%} of the frames"]
    doubts = []
    if len(background.views) > _MOST_VIEWS:  # also what something huge leaves in sight each time
        doubts.append(f"{len(background.views)} lights or scenes")
    counts = [_count(objects, usual) for objects in seen]
    alike = np.mean([abs(count - usual.count) <= 0.2 * usual.count for count in counts])
    if alike < _LEAST_ALIKE:
        doubts.append(f"{min(counts)} to {max(counts)} things that move at a time")
    lengths = np.array([blob.length for objects in seen for blob in objects])
    varied = 1.4826 * float(np.median(np.abs(lengths - usual.length))) / usual.length
    if varied > _MOST_VARIED:
        doubts.append(
            f"things of very different size ({lengths.min():.0f} to {lengths.max():.0f} pixels)"
        )
    height, width = (side * background.shrink for side in looks[0].picture.shape[1:])
    if usual.length > _LARGEST * min(height, width):
        doubts.append(f"something of {usual.length:.0f} pixels that moves in {width}×{height}")
    if usual.width < _SMALLEST_PX * background.shrink:
        doubts.append(f"things that are {usual.width:.0f} pixels wide in {width}×{height}")
    places = np.array([(objects[0].x, objects[0].y) for objects in seen])
    if math.hypot(*places.std(axis=0)) < _LEAST_MOVED * usual.length:
        doubts.append("something that stays where it is")
    return doubts
