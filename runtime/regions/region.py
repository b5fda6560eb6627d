"""Where to look in a frame: the contract of whatever knows the objects' places, or follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.images import Box


@dataclass(frozen=True)
class Target:
    """One object to be searched in one frame."""

    box: Box  # frame pixels, edges; may reach beyond the frame, whose border is then replicated
    track: int = 0  # the object's number: the same in all frames of a source
    heading: float | None = None  # of its head, radians from x towards y, where that is known


class Region(Protocol):
    """Says for every frame of one source, in order, where its objects are.

    closed: whether `targets` needs what was found in the frames before. Then each frame waits for
    the one before it, and `update` is called after every `targets`; else `targets` runs ahead, in a
    thread of its own, and `update` is never called.
    """

    closed: bool = False

    def targets(self, frame: Frame) -> Sequence[Target]:
        """The objects to be searched in `frame`; none is fine. Raises UserError."""
        ...

    def update(self, frame: Frame, detections: Sequence[Detection]) -> Sequence[Detection]:
        """Learn what was found at `targets`, in their order; returns what is to be believed."""
        return detections

    def state(self) -> Any:
        """All that is remembered of earlier frames, as JSON values that are restored exactly."""
        return None

    def restore(self, state: Any) -> None:
        """Go on where `state` was taken."""
        return None


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a[2] * a[3] + b[2] * b[3] - both)
