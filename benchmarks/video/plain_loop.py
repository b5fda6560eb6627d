"""The plain loop: from a video file to CSV and overlay as one writes it by hand with OpenCV.

It computes what `lmk detect` does, one frame after another, in batches of one: the same square of
each frame, its border replicated where it leaves the frame, points mapped back by pixel centres.
Two things differ: the square begins and ends at whole pixels, and OpenCV resamples it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import LOW_SCORE
from lmk.runtime.errors import UserError
from lmk.runtime.images import Box, square_around
from lmk.runtime.landmarker import Landmarker

_FIRST = 8  # column of landmarks.csv with the first landmark: x, y, score of each


class Trajectory(NamedTuple):
    """The landmarks of one object in every frame."""

    points: NDArray[np.float32]  # (frames,K,2): (x, y) in frame pixels, pixel centres
    scores: NDArray[np.float32]  # (frames,K)


def plain_loop(
    landmarker: Landmarker, video: Path, boxes: Sequence[Box], folder: Path, overlay: bool
) -> Trajectory:
    """Write plain.csv and, with `overlay`, plain.mp4 to `folder`; the session is our runner's.

    boxes: one a frame, in frame pixels. Raises UserError when OpenCV reads more or fewer frames.
    """
    import cv2

    capture = cv2.VideoCapture(str(video))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = None
    if overlay:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        rate = capture.get(cv2.CAP_PROP_FPS)
        writer = cv2.VideoWriter(str(folder / "plain.mp4"), code, rate, size)
    found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    with (folder / "plain.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        while True:
            more, image = capture.read()
            if not more or len(found) == len(boxes):
                break
            points, scores = _step(landmarker, np.asarray(image, np.uint8), boxes[len(found)])
            rows.writerow([len(found), *np.column_stack([points, scores]).ravel().tolist()])
            found.append((points, scores))
            if writer is not None:
                for x, y in points:
                    cv2.circle(image, (round(float(x)), round(float(y))), 4, (0, 255, 0), -1)
                writer.write(image)
    capture.release()
    if writer is not None:
        writer.release()
    if more or len(found) != len(boxes):
        raise UserError(
            f"{video}: OpenCV does not read the {len(boxes)} frames that `lmk detect` does; "
            "convert it, for instance by ffmpeg -i VIDEO -c:v libx264 -an NEW.mp4"
        )
    every_point, every_score = zip(*found, strict=True)
    return Trajectory(np.stack(every_point), np.stack(every_score))


def _step(
    landmarker: Landmarker, image: NDArray[np.uint8], box: Box
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (K,2) in frame pixels and scores (K,) of a BGR frame."""
    import cv2

    side = landmarker.contract.input_size
    x, y, length, _ = square_around(box, landmarker.contract.crop_scale)
    left, top, edge = round(x), round(y), max(1, round(length))
    window = cut(image, left, top, edge)
    how = cv2.INTER_AREA if edge > side else cv2.INTER_LINEAR
    crop = cv2.resize(window, (side, side), interpolation=how)
    landmarks, scores = landmarker.runner(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)[None])
    # Its copy: a runner may use the memory of its results again.
    points = (landmarks[0] + 0.5) * (edge / side) + np.array([left - 0.5, top - 0.5], np.float32)
    return points.astype(np.float32), scores[0].copy()


def cut(image: NDArray[np.uint8], left: int, top: int, edge: int) -> NDArray[np.uint8]:
    """The square (edge,edge,3) of an image that it overlaps, whose border is replicated outside."""
    import cv2

    height, width = image.shape[:2]
    before = max(0, -top), max(0, -left)
    after = max(0, top + edge - height), max(0, left + edge - width)
    inside = image[max(0, top) : top + edge, max(0, left) : left + edge]
    if not any((*before, *after)):
        return inside
    padded = cv2.copyMakeBorder(
        inside, before[0], after[0], before[1], after[1], cv2.BORDER_REPLICATE
    )
    return np.asarray(padded, np.uint8)


def read_ours(path: Path) -> Trajectory:
    """What `lmk detect` has written to its landmarks.csv, of one object a frame."""
    with path.open(newline="") as file:
        rows = np.array([row[_FIRST:] for row in list(csv.reader(file))[1:]], np.float32)
    triples = rows.reshape(len(rows), -1, 3)
    return Trajectory(triples[..., :2], triples[..., 2])


def apart(ours: Trajectory, other: Trajectory) -> dict[str, float | int | None]:
    """How far the same landmarks are from each other, in frame pixels.

    Of those that ours is confident of, `confident` of `landmarks`: the median and the 99th
    percentile, None if there are none.
    """
    confident = ours.scores >= LOW_SCORE
    distance = np.linalg.norm(ours.points - other.points, axis=-1)[confident]
    middle, most = np.percentile(distance, [50, 99]) if distance.size else (None, None)
    return {
        "median_px": None if middle is None else round(float(middle), 3),
        "p99_px": None if most is None else round(float(most), 3),
        "confident": int(distance.size),
        "landmarks": int(confident.size),
    }
