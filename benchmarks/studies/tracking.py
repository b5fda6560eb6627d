"""How well objects are followed: on videos, and where the truth is known.

    python -m lmk.benchmarks.studies.tracking --data DIR

DIR holds `videos/` and folders of images (face_mtfl80, cat_heads). On each video the landmarks are
found in whole frames, in their middle, with tracking and with smoothing on top. Then images of
objects are laid on a moving background, with known motion, size and disappearance. The last line
is JSON. Jitter is the mean absolute second difference of a landmark, in 128ths of the box's side:
of the motion that is real, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.benchmarks.machine import machine
from lmk.runtime.detection import Detection, Frame
from lmk.runtime.images import Box, read_image, square_around, to_frame, whole
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.pipeline import Smoother
from lmk.runtime.regions import Boxes, Region, Target, Tracker, overlap, parse_roi
from lmk.runtime.sources import CutDetector, open_source

_VIDEOS = (
    ("faces", "face_carphone"),
    ("cats", "cat_sofa"),
    ("faces", "person_juggle"),
)
# Category, its images, the video whose first frame, which shows none of it, is the background.
_PASTED = (("faces", "face_mtfl80", "cat_sofa"), ("cats", "cat_heads", "person_juggle"))
_RATE = 25.0
_SIZE = (540, 960)
_FRAMES, _HIDDEN = 150, range(70, 90)
_ROUNDS = 10
Pasted = tuple[Frame, Box | None]  # None: the object is hidden


def follow(
    landmarker: Landmarker,
    region: Region,
    frames: Iterable[Frame],
    smoother: Smoother | None = None,
) -> list[Sequence[Detection]]:
    """The detections of each frame, one frame after the other."""
    found: list[Sequence[Detection]] = []
    is_cut = CutDetector()
    for frame in frames:
        frame = replace(frame, is_cut=is_cut(frame.image))
        targets = region.targets(frame)
        boxes = [target.box for target in targets]
        pairs = zip(landmarker.batch([frame.image] * len(boxes), boxes), targets, strict=True)
        each: Sequence[Detection] = [replace(one, track=target.track) for one, target in pairs]
        each = region.update(frame, each) if region.closed else each
        found.append(smoother(frame, each) if smoother else each)
    return found


def jitter(found: Sequence[Sequence[Detection]]) -> float | None:
    """See above; over all frames whose two before it have the same track."""
    by_track = [{one.track: one for one in each} for each in found]
    sizes = []
    for (first, second), (_, third) in pairwise(pairwise(by_track)):
        for track in first.keys() & second.keys() & third.keys():
            a, b, c = (each[track] for each in (first, second, third))
            bend = np.linalg.norm(a.points - 2 * b.points + c.points, axis=1).mean()
            sizes.append(128 * float(bend) / max(c.box[2:]))
    return round(float(np.mean(sizes)), 3) if sizes else None


def on_video(landmarker: Landmarker, path: Path) -> dict[str, object]:
    """Each way of looking at one video."""
    with open_source(path) as source:
        frames = list(source)
    ways: dict[str, Callable[[], tuple[Region, Smoother | None]]] = {
        "full": lambda: (parse_roi("full"), None),
        "center": lambda: (parse_roi("center"), None),
        "track": lambda: (Tracker(landmarker), None),
        "track, smooth": lambda: (Tracker(landmarker), Smoother()),
    }
    table: dict[str, object] = {}
    for name, make in ways.items():
        region, smoother = make()
        started = perf_counter()
        found = follow(landmarker, region, frames, smoother)
        seconds = perf_counter() - started
        scores = [float(one.scores.mean()) for each in found for one in each]
        table[name] = {
            "frames_with_rows": round(float(np.mean([bool(each) for each in found])), 3),
            "score": round(float(np.mean(scores)), 3) if scores else None,
            "jitter": jitter(found),
            "frames_per_second": round(len(frames) / seconds, 1),
        }
    return table


def drift(landmarker: Landmarker, path: Path) -> dict[str, object]:
    """A video played forth and back: how the box of its first frame changes from round to round."""
    with open_source(path) as source:
        once = [frame.image for frame in source]
    images = (once + once[-2:0:-1]) * _ROUNDS
    frames = [Frame("loop", i, i / _RATE, image) for i, image in enumerate(images)]
    found = follow(landmarker, Tracker(landmarker), frames)
    boxes = [each[0].box for each in found[:: len(images) // _ROUNDS] if each]
    sides = [round(box[2], 2) for box in boxes]
    last = round(overlap(boxes[1], boxes[-1]), 3)
    return {"frames": len(frames), "sides_px": sides, "iou_second_and_last": last}


def pasted(thing: NDArray[np.uint8], background: NDArray[np.uint8]) -> Iterable[Pasted]:
    """Frames over which `thing` moves, grows and shrinks, before a background that pans."""
    rows, columns = (np.linspace(-1, 1, length) for length in thing.shape[:2])
    away = np.hypot(rows[:, None], columns)
    mask = Image.fromarray((255 * np.clip((1 - away) / 0.15, 0, 1)).astype(np.uint8))
    height, width = _SIZE
    large = Image.fromarray(background).resize((width + 200, height + 100))
    for index in range(_FRAMES):
        t = index / _RATE
        left, top = 100 + 95 * np.sin(1.1 * t), 50 + 45 * np.cos(0.8 * t)
        view = large.crop((int(left), int(top), int(left) + width, int(top) + height))
        side = round(150 * 1.5 ** np.sin(0.9 * t))
        x = round(width / 2 + 300 * np.sin(1.3 * t) - side / 2)
        y = round(height / 2 + 120 * np.sin(1.9 * t) - side / 2)
        if index not in _HIDDEN:
            size = (side, side)
            view.paste(Image.fromarray(thing).resize(size), (x, y), mask.resize(size))
        box: Box = (float(x), float(y), float(side), float(side))
        yield Frame("pasted", index, t, np.asarray(view)), None if index in _HIDDEN else box


def on_pasted(
    landmarker: Landmarker, thing: NDArray[np.uint8], background: NDArray[np.uint8], given: bool
) -> dict[str, float]:
    """Error of landmarks and boxes; given: the first box is, else it is searched."""
    alone = landmarker(thing).points
    clip = list(pasted(thing, background))
    first = clip[0][1]
    assert first is not None
    start = Boxes(lambda frame: [Target(first)]) if given else None
    found = follow(landmarker, Tracker(landmarker, start), [frame for frame, _ in clip])
    errors, shares, missed = [], [], 0
    for (_, box), detections in zip(clip, found, strict=True):
        if box is None:
            continue
        if not detections:
            missed += 1
            continue
        # `alone` as a crop of the object that is as large as its image
        there = to_frame(alone, (*box[:2], box[2], box[3]), thing.shape[0])
        off = np.linalg.norm(detections[0].points - there, axis=1).mean() / box[2]
        errors.append(float(off))
        shares.append(overlap(detections[0].box, box))
    ghosts = sum(bool(each) for (_, box), each in zip(clip, found, strict=True) if box is None)
    return {
        "lost": missed / (_FRAMES - len(_HIDDEN)),
        "rows_while_hidden": ghosts / len(_HIDDEN),
        "error_median": float(np.median(errors)) if errors else float("nan"),
        "off_by_a_tenth": float(np.mean(np.array(errors) > 0.1)) if errors else float("nan"),
        "box_iou": float(np.mean(shares)) if shares else float("nan"),
    }


def all_pasted(landmarker: Landmarker, folder: Path, video: Path, count: int) -> dict[str, object]:
    """The mean of `on_pasted` over `count` images of a folder, spread evenly."""
    with open_source(video) as source:
        background = next(iter(source)).image
    files = sorted((folder / "images").iterdir())
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]
    table: dict[str, object] = {"objects": count, "frames": _FRAMES, "hidden": len(_HIDDEN)}
    for given in (True, False):
        each = []
        for path in chosen:
            image = read_image(path)
            x, y, side, _ = square_around(whole(image))
            thing = np.asarray(Image.fromarray(image).crop((x, y, x + side, y + side)))
            each.append(on_pasted(landmarker, thing, background, given))
        means = {key: round(float(np.nanmean([one[key] for one in each])), 4) for key in each[0]}
        table["first box given" if given else "first box searched"] = means
    return table


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--objects", default=4, show_default=True, help="Images a category to lay on.")
def main(data: Path, objects: int) -> None:
    """Print a line for each measurement, and JSON last."""
    result: dict[str, object] = {}

    def note(name: str, table: dict[str, object]) -> None:
        result[name] = table
        click.echo(f"{name}: {json.dumps(table)}")

    for category, video in _VIDEOS:
        with load(category) as landmarker:
            note(f"{category} on {video}", on_video(landmarker, data / "videos" / f"{video}.mp4"))
    for category, video in _VIDEOS[:2]:
        with load(category) as landmarker:
            path = data / "videos" / f"{video}.mp4"
            note(f"{category} on {video}, forth and back", drift(landmarker, path))
    for category, folder, video in _PASTED:
        with load(category) as landmarker:
            path = data / "videos" / f"{video}.mp4"
            note(f"{category}, laid on", all_pasted(landmarker, data / folder, path, objects))
    click.echo(json.dumps({**result, "machine": machine()}))


if __name__ == "__main__":
    main()
