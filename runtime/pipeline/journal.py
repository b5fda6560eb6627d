"""What a run has found so far, on disk: an interrupted one goes on, and ends as if it had not been.

A hidden folder beside the results: `identity.json` says what they are made of, `journal.json` how
far they reach, one file a chunk holds what was found, and `work` is for the sinks of pictures. It
goes when the results are complete; what they were made of stays with them, in RECORD.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError, write_error
from lmk.runtime.files import write_bytes
from lmk.runtime.model import gate
from lmk.runtime.owner import RECORD, check_same

_IDENTITY, _STATE = "identity.json", "journal.json"
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Journal:
    """The journal of one run over one source, in `folder`.

    made_of: everything that finished results depend on, as JSON values; it is written into the file
    `record` when they are. made_by: what else has to stay the same while they are being made.
    resume: go on with the journal that is there, if any; else it is replaced. Raises UserError when
    it is of a run that differs in any of that, which is named, or damaged.
    """

    def __init__(
        self,
        folder: Path,
        made_of: Mapping[str, Any],
        resume: bool = False,
        made_by: Mapping[str, Any] | None = None,
        record: Path | None = None,
    ) -> None:
        self.folder, self.work = folder, self.work_of(folder)
        self._made_of = json.loads(json.dumps(made_of))
        self._record = record
        self._lines: list[str] = []
        self._chunks: list[int] = []  # number of frames of each
        self._sums: list[str] = []  # sha256 of each
        self.last_index = -1  # number of the last frame that is done
        self.state: Any = None  # see Found.before
        self.skipped: list[str] = []  # by the runs before this one
        identity = json.loads(json.dumps({**made_of, **(made_by or {})}))
        self._identity = gate.digest_of(identity)
        try:
            if resume and (folder / _STATE).exists():
                self._open(identity)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        if self.last_index < 0:
            write_bytes(folder / _IDENTITY, json.dumps(identity).encode())

    @staticmethod
    def work_of(folder: Path) -> Path:
        """Where sinks of pictures keep what outlives a crash; it is there once a journal is."""
        return folder / "work"

    def _open(self, identity: dict[str, Any]) -> None:
        path = self.folder / _STATE
        try:
            was = json.loads((self.folder / _IDENTITY).read_text())
            saved = json.loads(path.read_text())
            chunks, last, skipped = saved["chunks"], saved["last_index"], saved["skipped"]
            _check(gate.digest_of(saved) == saved["header_sha256"], "its sha256")
            _check(gate.digest_of(was) == saved["identity"], "the sha256 of its identity")
        except _DAMAGE as error:
            raise UserError(
                f"{path}: got a damaged journal ({error!r}), expected that of the interrupted run; "
                "start anew with --force"
            ) from error
        check_same(self.folder, was, identity)
        self._chunks, self.last_index, self.skipped = chunks, last, skipped
        self.state, self._sums = saved["state"], saved["sums"]

    def done(self) -> Iterator[list[tuple[Frame, list[Detection]]]]:
        """What the interrupted run had found, a list a chunk; the images have no content.

        Raises UserError where it is damaged.
        """
        for number, num_frames in enumerate(self._chunks):
            path = self._chunk(number)
            try:
                text = path.read_bytes()
                _check(_sum(text) == self._sums[number], "its sha256")
                entries = [_read(line) for line in text.decode().splitlines()]
                _check(len(entries) == num_frames, f"{num_frames} frames, got {len(entries)}")
            except _DAMAGE as error:
                raise UserError(f"{path}: damaged ({error}); start anew with --force") from error
            yield entries

    def add(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Remember one frame until `commit`."""
        self._lines.append(_line(frame, detections))

    def commit(self, last_index: int, state: Any, skipped: list[str]) -> None:
        """Make what was added last: from here a resumed run goes on."""
        text = "\n".join(self._lines).encode()
        write_bytes(self._chunk(len(self._chunks)), text)
        self._chunks.append(len(self._lines))
        self._sums.append(_sum(text))
        self._lines = []
        self.last_index, self.state = last_index, state
        saved = {"chunks": self._chunks, "last_index": last_index, "state": state}
        saved |= {"sums": self._sums, "identity": self._identity}
        saved["skipped"] = list(dict.fromkeys([*self.skipped, *skipped]))
        saved["header_sha256"] = gate.digest_of(saved)
        write_bytes(self.folder / _STATE, json.dumps(saved).encode())

    def finish(self) -> None:
        """The results are complete: say what they were made of, and go."""
        if self._record is not None:
            write_bytes(self._record, json.dumps(self._made_of, indent=1).encode())
        self.remove()

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chunk(self, number: int) -> Path:
        return self.folder / f"{number:06d}.jsonl"


def read_record(folder: Path) -> dict[str, Any]:
    """What the finished results in `folder` were made of. Raises UserError if that is not said."""
    path = folder / RECORD
    try:
        was: dict[str, Any] = json.loads(path.read_text())
        _check(isinstance(was, dict), "names and values")
    except FileNotFoundError:
        raise UserError(
            f"{folder}: got results that do not say what they were made of, expected {RECORD} "
            "beside them, as this version writes it for sources that can be read again; write "
            "elsewhere by --output, or start anew with --force"
        ) from None
    except _DAMAGE as error:
        raise UserError(f"{path}: damaged ({error}); start anew with --force") from error
    return was


def _sum(chunk: bytes) -> str:
    return hashlib.sha256(chunk).hexdigest()


def _line(frame: Frame, detections: Sequence[Detection]) -> str:
    found = [
        [each.track, [float(edge) for edge in each.box], each.points.tolist(), each.scores.tolist()]
        for each in detections
    ]
    return json.dumps([frame.source, frame.index, frame.time_s, frame.size, found])


def _read(line: str) -> tuple[Frame, list[Detection]]:
    """What `_line` made."""
    source, index, time_s, size, found = json.loads(line)
    blank = np.broadcast_to(np.uint8(0), (*size, 3))  # takes no memory
    detections = [
        Detection(
            np.array(points, np.float32).reshape(-1, 2),
            np.array(scores, np.float32),
            tuple(box),
            track,
        )
        for track, box, points, scores in found
    ]
    return Frame(source, index, time_s, blank), detections


def _check(holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"expected {expected}")
