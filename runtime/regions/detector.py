"""Whole frame -> boxes of objects, by an ONNX detector of the user's own."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.images import Box
from lmk.runtime.model import gate
from lmk.runtime.regions.region import Region, Target, overlap
from lmk.runtime.regions.yolo import FORMS, decode, recognise, suppress
from lmk.runtime.runners import PROVIDERS, open_session

_PAD = 114  # grey beside the image, as in the training of these networks
_NORMALISED = 2.0  # boxes whose edges are all below it are shares of the input
_SAME = 0.3  # overlap of a box with that of the frame before from which it is the same object's


@dataclass(frozen=True)
class DetectedBox:
    """One object that a detector found."""

    box: Box  # frame pixels, edges, within the frame
    score: float  # in [0, 1]
    label: str  # name of its class, its number where the model has no names


@dataclass(frozen=True)
class Letterbox:
    """How a frame lies in a detector's input: shrunk or grown as it is, grey beside it."""

    frame: tuple[int, int]  # (height, width), like all here
    size: tuple[int, int]  # of the input
    inner: tuple[int, int]  # of the frame in it
    corner: tuple[int, int]  # top and left of that

    @classmethod
    def of(cls, frame: tuple[int, int], size: tuple[int, int]) -> Letterbox:
        """A frame of that size in the middle of an input of that size."""
        scale = min(inside / length for inside, length in zip(size, frame, strict=True))
        height, width = (max(1, round(length * scale)) for length in frame)
        corner = ((size[0] - height) // 2, (size[1] - width) // 2)
        return cls(frame, size, (height, width), corner)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """HWC uint8 RGB -> (1,3,H,W) in [0, 1]."""
        (height, width), (top, left) = self.inner, self.corner
        inner = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        canvas = np.full((*self.size, 3), _PAD, np.uint8)
        canvas[top : top + height, left : left + width] = np.asarray(inner)
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / np.float32(255)

    def to_frame(self, edges: NDArray[np.float32]) -> NDArray[np.float64]:
        """Edges (N,4) left, top, right, bottom in the input -> in the frame; pixels."""
        scale = np.array(self.frame[::-1], np.float64) / self.inner[::-1]
        return (edges - np.tile(self.corner[::-1], 2)) * np.tile(scale, 2)


class BoxDetector:
    """A YOLO-style ONNX model: float32 (1,3,H,W) RGB in [0, 1] in, one table of boxes out.

    The table is one of `yolo.FORMS`, recognised by its shape. classes: names of those to be found,
    as the model's metadata has them, or their numbers; none = all. score: least score of a box.
    iou: most overlap of two boxes of one class. max_objects: the best so many, all when None.
    Raises UserError for a file that is no such model, classes it does not have and numbers out of
    range.
    """

    def __init__(
        self,
        path: Path | str,
        classes: Sequence[str] = (),
        score: float = 0.25,
        iou: float = 0.45,
        max_objects: int | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        for name, value in (("score", score), ("iou", iou)):
            if not 0 <= value <= 1:
                raise UserError(f"detector: got {name} {value}, expected 0 to 1")
        if max_objects is not None and max_objects < 1:
            raise UserError(f"detector: got at most {max_objects} objects, expected 1 or more")
        self.path, self._score, self._iou, self._most = Path(path), score, iou, max_objects
        self._session = _open(self.path, device, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.names = _class_names(metadata.get("names"), self.path)
        self._size = _input_size(self._session, self.path)
        # Run once: the graph may leave the shape of its output open.
        output = self._run(np.zeros((1, 3, *self._size), np.float32))
        count = len(self.names) if self.names else None
        self._form = recognise(output.shape, self._size, count, str(self.path))
        self._wanted = [number for name in classes for number in self._class_numbers(name)]

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedBox]:
        """The objects in an HWC uint8 RGB image, the best first."""
        height, width = image.shape[:2]
        letterbox = Letterbox.of((height, width), self._size)
        boxes = decode(self._run(letterbox(image)), self._form)
        chosen = boxes.scores >= max(self._score, 1e-6)  # padding of a table scores 0
        if self._wanted:
            chosen &= np.isin(boxes.classes, self._wanted)
        boxes = suppress(boxes[chosen], self._iou)
        if len(boxes) and boxes.edges.max() <= _NORMALISED:
            raise UserError(
                f"{self.path}: got boxes that end at {boxes.edges.max():.3g}, expected pixels of "
                "the detector's input, not shares of it; export it without normalising"
            )
        found = []
        limit = np.array([width, height, width, height])
        edges = np.clip(letterbox.to_frame(boxes.edges), 0, limit).tolist()
        for (left, top, right, bottom), score, number in zip(
            edges, boxes.scores, boxes.classes, strict=True
        ):
            if right - left >= 1 and bottom - top >= 1:
                label = self.names.get(int(number), str(number))
                box = (left, top, right - left, bottom - top)
                found.append(DetectedBox(box, float(score), label))
        return found[: self._most]

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            [output] = self._session.run(None, {self._session.get_inputs()[0].name: images})
        except Exception as error:  # onnxruntime's exceptions share no base class
            reason = str(error).replace("\n", " ").split(" : ", 3)[-1]
            raise UserError(f"{self.path}: cannot run ({reason}); export the detector again") from (
                error
            )
        return np.asarray(output, np.float32)

    def _class_numbers(self, name: str) -> list[int]:
        numbers = [number for number, known in self.names.items() if name == known]
        if name.isdecimal() and (int(name) in self.names or not self.names):
            numbers = numbers or [int(name)]
        if not numbers:
            known = ", ".join(self.names.values()) or "a number: the model has no names"
            raise UserError(f"{self.path}: got class '{name}', expected {known}")
        return numbers


class DetectorRegion(Region):
    """The boxes that a detector finds in each frame, numbered by overlap.

    A box that overlaps one of the last found has its number; the best pairs first. Others are new,
    and no number is used twice.
    """

    def __init__(self, detector: BoxDetector) -> None:
        self._detector = detector
        self._last: list[Target] = []
        self._next_number = 0

    def targets(self, frame: Frame) -> Sequence[Target]:
        """See `Region.targets`."""
        self._last = self._numbered([found.box for found in self._detector(frame.image)])
        return list(self._last)

    def state(self) -> Any:
        """See `Region.state`."""
        last = [[list(target.box), target.track] for target in self._last]
        return {"last": last, "next": self._next_number}

    def restore(self, state: Any) -> None:
        """See `Region.restore`."""
        self._last = [Target(tuple(box), track) for box, track in state["last"]]
        self._next_number = state["next"]

    def _numbered(self, boxes: Sequence[Box]) -> list[Target]:
        pairs = sorted(
            (
                (overlap(box, old.box), i, old.track)
                for i, box in enumerate(boxes)
                for old in self._last
            ),
            key=lambda pair: -pair[0],
        )
        numbers: dict[int, int] = {}
        for shared, index, track in pairs:
            if shared >= _SAME and index not in numbers and track not in numbers.values():
                numbers[index] = track
        for index in range(len(boxes)):
            if index not in numbers:
                numbers[index] = self._next_number
                self._next_number += 1
        return [Target(box, numbers[index]) for index, box in enumerate(boxes)]


def _open(path: Path, device: str, threads: int | None) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: got no such file, expected an ONNX detector; check the path")
    if device not in PROVIDERS:
        raise UserError(f"device: got '{device}', expected one of {', '.join(PROVIDERS)}")
    try:
        session = open_session(path, PROVIDERS[device], threads)
    except UserError as error:
        if "as an ONNX model" not in str(error):  # the device's trouble
            raise
        raise UserError(
            f"{path}: cannot be read as an ONNX model, expected a detector; export it again"
        ) from error
    count = len(session.get_outputs())
    if count != 1:
        raise UserError(f"{path}: got {count} outputs, expected one, {FORMS}; export a detector")
    return session


def _input_size(session: Any, path: Path) -> tuple[int, int]:
    """(height, width) of the model's only input."""
    inputs = [(tensor.type, tensor.shape) for tensor in session.get_inputs()]
    if len(inputs) == 1:
        kind, shape = inputs[0]
        fixed = len(shape) == 4 and all(isinstance(length, int) for length in shape[2:])
        if kind == "tensor(float)" and fixed and shape[1] == 3 and shape[0] in (1, "batch", None):
            return int(shape[2]), int(shape[3])
    raise UserError(
        f"{path}: got inputs {inputs}, expected one, float32 (1, 3, height, width) of fixed size; "
        "export the detector so"
    )


def _class_names(text: str | None, path: Path) -> dict[int, str]:
    """What the metadata calls the classes, by number; none if it does not say."""
    if text is None:
        return {}
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last: too deep
        found = None
    names = dict(enumerate(found)) if isinstance(found, list | tuple) else found
    if isinstance(names, dict) and all(
        type(number) is int and number >= 0 and gate.TEXT.holds(name)
        for number, name in names.items()
    ):
        return names
    raise UserError(
        f"{path}: got class names {gate.short(text)}, expected a dictionary of numbers and names; "
        "export the detector again"
    )
