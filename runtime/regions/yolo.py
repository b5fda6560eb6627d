"""Output of a YOLO-style network -> boxes: recognised by its shape, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError

Form = Literal["columns", "objectness", "end-to-end"]
_STRIDES = (8, 16, 32, 64)
_ANCHORS = 3  # boxes a cell of the networks with objectness
FORMS = (
    "(1, 4 + classes, cells) of YOLO v8, v9, v11 and v12, (1, 3 × cells, 5 + classes) of v5 and "
    "v7, or (1, N, 6) of v10 and v26"
)


@dataclass(frozen=True)
class Candidates:
    """N boxes that a network found, in pixels of its input."""

    edges: NDArray[np.float32]  # (N,4): left, top, right, bottom
    scores: NDArray[np.float32]  # (N,) in [0, 1]
    classes: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: NDArray[np.generic]) -> Candidates:
        return Candidates(self.edges[chosen], self.scores[chosen], self.classes[chosen])


def recognise(
    shape: tuple[int, ...], size: tuple[int, int], num_classes: int | None, source: str
) -> Form:
    """Which form an output of that shape has, of a network with input `size` (height, width).

    "columns": centre x, y, width, height and class scores, a box a column. "objectness": the same
    and a score of there being an object, a box a row. "end-to-end": left, top, right, bottom, score
    and class, a box a row, best ones only. A network has one box a cell, or three, of strides 8, 16
    and 32, some also 64: that tells the forms apart. Raises UserError.
    """
    if len(shape) == 3 and shape[0] == 1:
        _, rows, columns = shape
        for last in (3, 4):
            cells = sum((size[0] // s) * (size[1] // s) for s in _STRIDES[:last])
            if columns == cells and rows > 4 and num_classes in (None, rows - 4):
                return "columns"
            if rows == _ANCHORS * cells and columns > 5 and num_classes in (None, columns - 5):
                return "objectness"
            if rows == cells:  # a box a cell, a box a row: of YOLOX, say, without its decoding
                break
        else:
            if columns == 6:
                return "end-to-end"
    classes = "" if num_classes is None else f" and {num_classes} classes"
    raise UserError(
        f"{source}: got an output {shape} for an input of {size[1]}×{size[0]} pixels{classes}, "
        f"expected {FORMS}; export the detector so"
    )


def decode(output: NDArray[np.float32], form: Form) -> Candidates:
    """The boxes of an output (1,·,·) of that form, in its order, not chosen from."""
    table = output[0].T if form == "columns" else output[0]
    if form == "end-to-end":
        return Candidates(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
    each = table[:, 4:] if form == "columns" else table[:, 4:5] * table[:, 5:]
    classes = each.argmax(axis=1)
    half = table[:, 2:4] / 2
    edges = np.concatenate([table[:, :2] - half, table[:, :2] + half], axis=1)
    return Candidates(edges, each[np.arange(len(each)), classes], classes)


def suppress(boxes: Candidates, most_overlap: float) -> Candidates:
    """The boxes, best first, that overlap none better of their class by more than that."""
    left = boxes[np.argsort(-boxes.scores, kind="stable")]
    kept = []
    order = np.arange(len(left))
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        same = left.classes[rest] == left.classes[best]
        order = rest[~(same & (overlaps(left.edges[best], left.edges[rest]) > most_overlap))]
    return left[np.array(kept, np.int64)]


def overlaps(one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union (N,) of edges (4,) with edges (N,4)."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    both = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod()
    return both / np.maximum(areas - both, 1e-9)
