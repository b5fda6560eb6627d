"""How the crops that a pack was learnt from were found: what detection does again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lmk.runtime.files import read_text, write_bytes
from lmk.runtime.model import gate
from lmk.runtime.regions.moving import MARGIN

Way = Literal["full", "motion", "box", "detector"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class Finding:
    """Where in the frames of films the objects were, in training.

    way: "full", the frame was the object; "motion", what moves before a still camera, see
    `MovingObjects`; "box", boxes that the user gave, or one that was followed; "detector", the
    boxes of an ONNX detector.
    """

    way: Way = "full"
    objects: int | None = None  # at a time, if the user said so; None: as many as there are
    margin: float = MARGIN  # of motion: side of a box, in lengths of its object
    detector: str = ""  # the file's name, with "detector"

    def to_json(self) -> dict[str, Any]:
        """For the header of a pack, whose `finding` it is, and for a file beside boxes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Finding | None:
        """What `to_json` gave, after the gate; None for None, of packs that do not say it."""
        return None if values is None else cls(**values)

    def write_beside(self, boxes: Path) -> None:
        """Keep it with a CSV of boxes that were found so: `finding_of` reads it."""
        write_bytes(_beside(boxes), json.dumps(self.to_json()).encode())


def finding_of(boxes: Path) -> Finding:
    """How the boxes of a CSV were found: as `lmk find` has noted beside it, else by the user.

    Raises UserError for a note that is damaged.
    """
    note = _beside(boxes)
    if not note.is_file():
        return Finding("box")
    cure = f"run `lmk find` again, or remove {note.name}"
    values = gate.parse(read_text(note, "how boxes were found"), str(note), cure)
    gate.check({"finding": values}, {"finding": gate.FINDING}, str(note), cure)
    return Finding(**values)


def _beside(boxes: Path) -> Path:
    return boxes.with_suffix(".json")
