"""What a run has found so far, on disk: an interrupted one goes on, and ends as if it had not been.

A hidden folder beside the results: `journal.json` says how far it reaches, one file a chunk holds
what was found, and `work` is for the sinks of pictures. It goes when the results are complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError, write_error
from lmk.runtime.files import write_bytes

_STATE = "journal.json"


class Journal:
    """The journal of one run over one source, in `folder`.

    identity: everything the results depend on, as JSON values. resume: go on with the journal that
    is there, if any; else it is replaced. Raises UserError when it is of a run with another
    identity, or damaged.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], resume: bool = False) -> None:
        self.folder, self.work = folder, folder / "work"
        self._identity = json.loads(json.dumps(identity))
        self._lines: list[str] = []
        self._chunks: list[int] = []  # number of frames of each
        self.last_index = -1  # number of the last frame that is done
        self.state: Any = None  # see Found.before
        self.skipped: list[str] = []  # by the runs before this one
        try:
            if resume and (folder / _STATE).exists():
                self._open()
            else:
                shutil.rmtree(folder, ignore_errors=True)
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error

    def _open(self) -> None:
        path = self.folder / _STATE
        try:
            saved = json.loads(path.read_text())
            identity = saved.pop("identity")
            self._chunks, self.last_index = saved["chunks"], saved["last_index"]
            self.state, self.skipped = saved["state"], saved["skipped"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: got a damaged journal ({error}), expected that of the interrupted run; "
                "start anew with --force"
            ) from error
        for name in sorted({*identity, *self._identity}):
            was, now = identity.get(name), self._identity.get(name)
            if was != now:
                raise UserError(
                    f"{name}: got {now}, expected {was} as in the interrupted run; resume it with "
                    "the same source, model and options, or start anew with --force"
                )

    def done(self) -> Iterator[list[tuple[Frame, list[Detection]]]]:
        """What the interrupted run had found, a list a chunk; the images have no content."""
        for number, num_frames in enumerate(self._chunks):
            path = self._chunk(number)
            try:
                entries = [_read(line) for line in path.read_text().splitlines()]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}: damaged ({error}); start anew with --force") from error
            if len(entries) != num_frames:
                raise UserError(
                    f"{path}: got {len(entries)} frames, expected {num_frames}; "
                    "start anew with --force"
                )
            yield entries

    def add(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Remember one frame until `commit`."""
        self._lines.append(_line(frame, detections))

    def commit(self, last_index: int, state: Any, skipped: list[str]) -> None:
        """Make what was added last: from here a resumed run goes on."""
        write_bytes(self._chunk(len(self._chunks)), "\n".join(self._lines).encode())
        self._chunks.append(len(self._lines))
        self._lines = []
        self.last_index, self.state = last_index, state
        saved = {"identity": self._identity, "chunks": self._chunks, "last_index": last_index}
        saved |= {"state": state, "skipped": list(dict.fromkeys([*self.skipped, *skipped]))}
        write_bytes(self.folder / _STATE, json.dumps(saved).encode())

    def remove(self) -> None:
        """The results are complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chunk(self, number: int) -> Path:
        return self.folder / f"{number:06d}.jsonl"


def _line(frame: Frame, detections: Sequence[Detection]) -> str:
    found = [
        [each.track, [float(edge) for edge in each.box], each.points.tolist(), each.scores.tolist()]
        for each in detections
    ]
    return json.dumps([frame.source, frame.index, frame.time_s, frame.size, found])


def _read(line: str) -> tuple[Frame, list[Detection]]:
    source, index, time_s, (height, width), found = json.loads(line)
    blank = np.broadcast_to(np.uint8(0), (height, width, 3))  # takes no memory
    detections = [
        Detection(
            np.array(points, np.float32).reshape(-1, 2),
            np.array(scores, np.float32),
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            track,
        )
        for track, box, points, scores in found
    ]
    return Frame(source, index, time_s, blank), detections
