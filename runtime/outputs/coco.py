"""Detections -> one JSON file of COCO key points."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.outputs.sink import FileSink, number, write_errors
from lmk.runtime.sources import Source

_CATEGORY = 1
_SEEN, _UNSURE, _MISSING = 2, 1, 0  # COCO's v: visible, labelled though hidden, not labelled


class CocoSink(FileSink):
    """An `images` entry per frame and an `annotations` entry per object, one category.

    Points as COCO's own: pixel indices, the centre of the top-left one (0, 0); `bbox` is x, y,
    width, height (edges). v is 2, 1 for a low score, 0 for a point that is no number. Beyond COCO:
    `scores`, one a landmark, and `track_id`; `video`, `frame` and `time_s` of a video's images.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        category: str = "object",
        skeleton: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(path)
        index = {name: number for number, name in enumerate(names, start=1)}
        self._category = {
            "id": _CATEGORY,
            "name": category,
            "supercategory": "object",
            "keypoints": list(names),
            "skeleton": [[index[first], index[second]] for first, second in skeleton],
        }

    def begin(self, source: Source, path: Path) -> None:
        """Start the lists: `images` in the file, `annotations` in one beside it until the end."""
        self._numbered = source.frame_rate is not None
        self._num_images = self._num_annotations = 0
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115
        # Without a name: gone with the process, whatever ends it.
        self._annotations: IO[str] = tempfile.TemporaryFile(  # noqa: SIM115
            "w+", encoding="utf-8", dir=path.parent
        )
        head = {"info": {"description": "landmarks found by lmk"}, "categories": [self._category]}
        self._file.write(_dump(head)[:-1] + ',\n"images":[')

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add one frame with its objects."""
        with write_errors(self.path):
            self._file.write(",\n" if self._num_images else "\n")
            self._num_images += 1
            self._file.write(_dump(self._image(frame)))
            for detection in detections:
                self._annotations.write(",\n" if self._num_annotations else "\n")
                self._num_annotations += 1
                self._annotations.write(_dump(self._annotation(detection)))

    def _image(self, frame: Frame) -> dict[str, Any]:
        height, width = frame.size
        image = {"id": self._num_images, "width": width, "height": height}
        if not self._numbered:
            return image | {"file_name": frame.source}
        place = {"video": frame.source, "frame": frame.index, "time_s": round(frame.time_s, 6)}
        return image | {"file_name": f"{Path(frame.source).stem}_{frame.index:06d}.png"} | place

    def _annotation(self, detection: Detection) -> dict[str, Any]:
        finite = np.isfinite(detection.points.sum(axis=1))
        visible = np.where(finite, np.where(detection.low, _UNSURE, _SEEN), _MISSING)
        points = np.where(finite[:, None], detection.points, 0)
        keypoints: list[float | None] = []
        for (x, y), v in zip(points.tolist(), visible.tolist(), strict=True):
            keypoints += [number(x, 3), number(y, 3), v]
        return {
            "id": self._num_annotations,
            "image_id": self._num_images,
            "category_id": _CATEGORY,
            "track_id": detection.track,
            "bbox": [number(value, 3) for value in detection.box],
            "area": number(detection.box[2] * detection.box[3], 3),
            "iscrowd": 0,
            "num_keypoints": int(finite.sum()),
            "keypoints": keypoints,
            "score": number(detection.scores.mean(), 4),
            "scores": [number(score, 4) for score in detection.scores],
        }

    def end(self) -> None:
        """Put the lists together."""
        with self._file, self._annotations:
            self._file.write('\n],\n"annotations":[')
            self._annotations.seek(0)
            shutil.copyfileobj(self._annotations, self._file)
            self._file.write("\n]}\n")

    def drop(self) -> None:
        """Close both."""
        with self._file, self._annotations:
            pass


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
