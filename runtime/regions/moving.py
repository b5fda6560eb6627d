"""What moves before a still camera -> the box of each object, frame after frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Frame
from lmk.runtime.images import Box
from lmk.runtime.regions.background import Background
from lmk.runtime.regions.region import Region, Target

MARGIN = 1.5  # side of a box, in lengths of the object as its second moments have it
_THIN = 0.25  # of the usual width: such parts are left out
SMALLEST = 0.3  # of the usual area: less is no object by itself
_JOINED = 1.5  # usual areas from which a blob is more than one object
_REACH = 1.5  # lengths that an object may be away from where it was expected
_NEAR = 0.8  # lengths from an object's centre within which a scrap belongs to it
_PATIENCE_S = 0.5  # an object that is not seen for so long is lost
_SPEED_GAIN, _SPEED_KEPT_S = 0.5, 0.15  # and the time constant with which a speed dies away
_SIZE_S = 2.0  # time constant with which the size of a box follows that of its object
_MOST_SCALED = 2.0  # of the usual length, or its inverse
_STEPS = 6  # of parting a blob
_FORWARD_S = 3.0  # time constant with which it is forgotten where an object went
_BACKWARD = 0.4  # lengths that it must have gone tail first to be turned round


@dataclass(frozen=True)
class Blob:
    """Pixels that belong together, and the ellipse that has their moments; pixels of the frame."""

    pixels: NDArray[np.float64]  # (M,2): their centres, x and y, edges convention
    x: float
    y: float
    length: float  # of the ellipse's axes
    width: float
    axis: float  # direction of the longer one, radians from x towards y, in [-π/2, π/2]
    area: float

    @classmethod
    def of(cls, pixels: NDArray[np.float64], pixel_area: float) -> Blob:
        """Made of pixels (M,2), M ≥ 1, each of that area."""
        x, y = pixels.mean(axis=0)
        xx, yy = pixels.var(axis=0) + pixel_area / 12
        xy = float(((pixels[:, 0] - x) * (pixels[:, 1] - y)).mean())
        middle, apart = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
        axis = math.atan2(2 * xy, xx - yy) / 2
        length, width = (4 * math.sqrt(max(middle + way * apart, 1e-6)) for way in (1, -1))
        return cls(pixels, float(x), float(y), length, width, axis, len(pixels) * pixel_area)


@dataclass(frozen=True)
class Usual:
    """What is known of a film's objects beforehand; pixels of the frame."""

    count: int
    length: float
    width: float
    area: float


@dataclass
class Follow:
    """One object: where it is, how it moves and lies."""

    number: int
    x: float
    y: float
    length: float  # that of its box, without the margin
    covariance: list[list[float]]  # of its pixels
    heading: float  # of its head, by the way it moves; radians from x towards y
    speed_x: float = 0.0  # pixels a second
    speed_y: float = 0.0
    forward: float = 0.0  # lengths that it went head first, of late
    unseen_s: float = 0.0
    pixels: NDArray[np.float64] | None = field(default=None, repr=False)  # in the last frame

    def box(self, margin: float) -> Box:
        """The square about it, of `margin` times its length."""
        side = margin * self.length
        return (self.x - side / 2, self.y - side / 2, side, side)

    def predict(self, step_s: float) -> None:
        """Go on by that time; the speed dies away meanwhile."""
        kept = math.exp(-step_s / _SPEED_KEPT_S)
        self.x += self.speed_x * _SPEED_KEPT_S * (1 - kept)
        self.y += self.speed_y * _SPEED_KEPT_S * (1 - kept)
        self.speed_x, self.speed_y = kept * self.speed_x, kept * self.speed_y
        self.pixels = None

    def see(self, blob: Blob, usual: Usual, step_s: float, whole: bool) -> None:
        """Learn where it is now; whole: it touches no other, so that its size can be told."""
        self.speed_x += _SPEED_GAIN * (blob.x - self.x) / step_s
        self.speed_y += _SPEED_GAIN * (blob.y - self.y) / step_s
        self.x, self.y, self.pixels, self.unseen_s = blob.x, blob.y, blob.pixels, 0.0
        if whole:
            low, high = usual.length / _MOST_SCALED, usual.length * _MOST_SCALED
            gain = 1 - math.exp(-step_s / _SIZE_S)
            self.length += gain * (min(max(blob.length, low), high) - self.length)
            self.covariance = np.cov(blob.pixels.T, bias=True).tolist()
        self._turn(blob.axis, step_s)

    def _turn(self, axis: float, step_s: float) -> None:
        """Take the way along `axis` that is nearer to the last, unless it keeps moving backwards.

        An animal may back off for a moment.
        """
        self.heading = axis + math.pi * (math.cos(axis - self.heading) < 0)
        along = math.cos(self.heading) * self.speed_x + math.sin(self.heading) * self.speed_y
        self.forward *= math.exp(-step_s / _FORWARD_S)
        self.forward += min(max(along * step_s / self.length, -0.2), 0.2)
        if self.forward < -_BACKWARD:
            self.heading, self.forward = self.heading + math.pi, -self.forward


class MovingObjects(Region):
    """Follows what does not belong to the background, by its place; no landmarks are needed.

    Boxes are square, of `margin` times the length of the objects without their thin parts, and as
    steady as those are in size. Of objects that touch the pixels are shared out by where each was
    and how it lay. One that is not seen for half a second is lost; the next to turn up has the
    number of the lost one that is nearest, so that there are never more numbers than objects.
    """

    def __init__(self, background: Background, usual: Usual, margin: float = MARGIN) -> None:
        self._background, self._usual, self._margin = background, usual, margin
        # What is much thinner than an object, a tail, say, is no part of its body.
        self.opening = max(3, round(_THIN * usual.width / background.shrink) | 1)  # shrunk pixels
        self._objects: list[Follow] = []
        self._time_s: float | None = None
        self._next_number = 0

    def targets(self, frame: Frame) -> Sequence[Target]:
        """See `Region.targets`."""
        found = self.look(frame)
        return [Target(each.box(self._margin), each.number, each.heading) for each in found]

    def look(self, frame: Frame) -> Sequence[Follow]:
        """The objects in the next frame, by number; only with those seen in it go pixels."""
        elapsed_s = frame.time_s - self._time_s if self._time_s is not None else 0.0
        step_s = elapsed_s if elapsed_s > 0 else 0.04
        self._time_s = frame.time_s
        for each in self._objects:
            each.predict(step_s)
            each.unseen_s += step_s
        mask = self._background.foreground(frame.image, self.opening)
        found = blobs(mask, self._background.shrink) if mask is not None else []
        known = [each for each in self._objects if each.unseen_s <= _PATIENCE_S]
        parts, whole, free = self._share_out(found, known)
        for each, pixels, alone in zip(known, parts, whole, strict=True):
            if len(pixels):
                each.see(self._blob(pixels), self._usual, step_s, alone)
        self._begin(free)
        return sorted(
            (each for each in self._objects if each.unseen_s <= _PATIENCE_S),
            key=lambda each: each.number,
        )

    def state(self) -> Any:
        """See `Region.state`."""
        objects = [vars(each) | {"pixels": None} for each in self._objects]
        return {"objects": objects, "time": self._time_s, "next": self._next_number}

    def restore(self, state: Any) -> None:
        """See `Region.restore`."""
        self._objects = [Follow(**each) for each in state["objects"]]
        self._time_s, self._next_number = state["time"], state["next"]

    def _blob(self, pixels: NDArray[np.float64]) -> Blob:
        return Blob.of(pixels, self._background.shrink**2)

    def _share_out(
        self, found: Sequence[Blob], known: Sequence[Follow]
    ) -> tuple[list[NDArray[np.float64]], list[bool], list[Blob]]:
        """The pixels of each known object, whether it is whole, and the blobs that are nobody's."""
        from scipy.optimize import linear_sum_assignment

        owners: list[list[int]] = [[] for _ in found]
        big = [n for n, blob in enumerate(found) if blob.area >= SMALLEST * self._usual.area]
        away = np.array(
            [
                [math.hypot(o.x - found[n].x, o.y - found[n].y) / o.length for n in big]
                for o in known
            ]
        ).reshape(len(known), len(big))
        for row, column in zip(*linear_sum_assignment(np.minimum(away, 10 * _REACH)), strict=True):
            if away[row, column] <= _REACH:
                owners[big[column]].append(int(row))
        for row, each in enumerate(known):  # behind or beside another, in one blob with it?
            if any(row in own for own in owners):
                continue
            gaps = [_gap(each, blob) / each.length for blob in found]
            nearest = int(np.argmin(gaps)) if gaps else -1
            if gaps and gaps[nearest] <= 0.5:
                owners[nearest].append(row)
        free = []
        for blob, own in zip(found, owners, strict=True):
            if own:
                continue
            near = [math.hypot(o.x - blob.x, o.y - blob.y) / o.length for o in known]
            if blob.area < SMALLEST * self._usual.area:
                if near and min(near) <= _NEAR:  # a scrap of that one
                    own.append(int(np.argmin(near)))
            else:
                free.append(blob)
        parts: list[list[NDArray[np.float64]]] = [[] for _ in known]
        whole = [True] * len(known)
        for blob, own in zip(found, owners, strict=True):
            starts = [(known[row].x, known[row].y) for row in own]
            shapes = [np.array(known[row].covariance) for row in own]
            for row, pixels in zip(own, part(blob.pixels, starts, shapes), strict=True):
                parts[row].append(pixels)
                whole[row] = whole[row] and len(own) == 1
        return [np.concatenate(p) if p else np.zeros((0, 2)) for p in parts], whole, free

    def _begin(self, free: Sequence[Blob]) -> None:
        """Take up what is nobody's, the biggest first: as one that was lost, or as a new one."""
        usual = self._usual
        for blob in sorted(free, key=lambda blob: -blob.area):
            seen = sum(each.unseen_s <= _PATIENCE_S for each in self._objects)
            room = usual.count - seen
            if room <= 0:
                return
            count = min(room, max(1, round(blob.area / usual.area)))
            count = count if blob.area >= _JOINED * usual.area else 1
            along = (np.arange(count) + 0.5) / count - 0.5
            direction = np.array([math.cos(blob.axis), math.sin(blob.axis)])
            starts = np.array([blob.x, blob.y]) + along[:, None] * blob.length * direction
            shape = np.diag([usual.length * usual.width / 16] * 2)
            for pixels in part(blob.pixels, starts, [shape] * count):
                if len(pixels):
                    self._take_up(self._blob(pixels), count == 1)

    def _take_up(self, blob: Blob, alone: bool) -> None:
        usual = self._usual
        length = (
            blob.length if alone and blob.length < _MOST_SCALED * usual.length else usual.length
        )
        lost = [each for each in self._objects if each.unseen_s > _PATIENCE_S]
        if lost and len(self._objects) >= usual.count:
            before = min(lost, key=lambda each: math.hypot(each.x - blob.x, each.y - blob.y))
            self._objects.remove(before)
            number = before.number
        else:
            number, self._next_number = self._next_number, self._next_number + 1
        covariance = np.cov(blob.pixels.T, bias=True) + self._background.shrink**2 / 12 * np.eye(2)
        self._objects.append(
            Follow(
                number,
                blob.x,
                blob.y,
                (length + usual.length) / 2,
                covariance.tolist(),
                blob.axis,
                pixels=blob.pixels,
            )
        )


def blobs(mask: NDArray[np.bool_], shrink: int) -> list[Blob]:
    """The connected pixels of a foreground (h,w), as of `Background.foreground`."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    rows, columns = np.nonzero(labels)
    order = np.argsort(labels[rows, columns], kind="stable")
    pixels = (np.stack([columns, rows], axis=1)[order] + 0.5) * shrink
    ends = np.cumsum(np.bincount(labels[rows, columns], minlength=count + 1)[1:])
    return [Blob.of(each, shrink**2) for each in np.split(pixels, ends[:-1]) if len(each)]


def part(
    pixels: NDArray[np.float64],
    starts: Sequence[Any] | NDArray[np.float64],
    shapes: Sequence[NDArray[np.float64]],
) -> list[NDArray[np.float64]]:
    """Share out pixels (M,2) among objects at `starts` (x, y) that lay as covariances `shapes`.

    Each pixel goes to the object of whose ellipse it is least far out; the ellipses move and turn
    with what they got.
    """
    if len(starts) < 2:
        return [pixels] * len(starts)
    centres = [np.asarray(start, np.float64) for start in starts]
    shapes = [np.array(shape) for shape in shapes]
    for _ in range(_STEPS):
        far = np.stack(
            [
                np.einsum("mi,ij,mj->m", pixels - c, np.linalg.inv(s + np.eye(2)), pixels - c)
                for c, s in zip(centres, shapes, strict=True)
            ]
        )
        owner = far.argmin(axis=0)
        for n in range(len(centres)):
            own = pixels[owner == n]
            if len(own) > 5:
                centres[n] = own.mean(axis=0)
                # As big as it was, lying as its pixels do now.
                turned = np.cov(own.T, bias=True) + np.eye(2)
                size = math.sqrt(np.linalg.det(shapes[n] + np.eye(2)) / np.linalg.det(turned))
                shapes[n] = 0.5 * shapes[n] + 0.5 * turned * size
    return [pixels[owner == n] for n in range(len(centres))]


def _gap(each: Follow, blob: Blob) -> float:
    """How far an object's place is from the nearest pixel of a blob."""
    return float(np.hypot(*(blob.pixels - (each.x, each.y)).T).min())
