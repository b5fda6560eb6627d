"""From a video file to CSV and overlay: `lmk detect` beside a plain OpenCV loop of the same model.

Same file, same squares of the frames, same threads, taking turns. The plain loop (`plain_loop.py`)
runs the model in fp32 with ONNX Runtime on the CPU, frame by frame; where ours is another runner,
the loop runs with that one too, so that engine and pipeline are told apart. Absolute rates vary
between machines: read the ratios.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.benchmarks.clip import clip_seconds, write_clip
from lmk.benchmarks.machine import cores, machine
from lmk.benchmarks.timing import Seconds, seconds_of, take_turns
from lmk.benchmarks.video.plain_loop import Trajectory, apart, plain_loop, read_ours
from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.images import Box, square_around
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.model import Contract, compose_file, model_file, pack_of, workspace
from lmk.runtime.outputs import make_sinks
from lmk.runtime.pipeline import Summary, detect
from lmk.runtime.regions import Region, parse_roi
from lmk.runtime.sources import open_source
from lmk.runtime.terminal import console

_LEAST_CROPS = 32
_BATCH = 4
_LONG = "long:"
_FORMATS = {"csv": ("csv",), "overlay": ("csv", "overlay")}


def bench_video(
    model: Path,
    videos: Sequence[str],
    roi: str = "center",
    rounds: int = 5,
    threads: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """`compare` for every video, with the machine; `long:SECONDS` is made for the run.

    roi: exactly one box a frame, as `parse_roi`. Raises UserError without OpenCV, for words that
    mean nothing, and as `compare`.
    """
    load_before = os.getloadavg()[0]
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"the plain loop needs OpenCV ({error}); pip install opencv-python-headless"
        ) from error
    threads = threads or cores()
    cv2.setNumThreads(threads)
    if roi == "track":
        raise UserError(
            "roi: got track, expected full, center, x,y,w,h or a .csv; the plain loop cannot track"
        )
    region = parse_roi(roi)
    for video in videos:
        if not video.startswith(_LONG) and not Path(video).is_file():
            raise UserError(
                f"video: got '{video}', expected a file or {_LONG}SECONDS; check the path"
            )
    # Of a video that is to be made; None: it is a file, which is opened later.
    lengths = [clip_seconds(v.removeprefix(_LONG)) if v.startswith(_LONG) else None for v in videos]
    model = model_file(workspace.pick(model, "onnx"))
    results, names = [], dict[str, str]()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(load(model, device, threads, side_by_side=True))
        file = _in_fp32(model, ours.contract, folder)
        plain = stack.enter_context(load(file, "cpu", threads))  # as in any plain loop
        names = {"runner": _runner(ours), "plain_runner": _runner(plain)}
        for video, seconds in zip(videos, lengths, strict=True):
            path = write_clip(folder / "long.mp4", seconds) if seconds else Path(video)
            results.append(compare(ours, plain, path, region, folder, rounds))
    versions = machine("openvino", "opencv-python-headless")
    return {
        "model": model.name,
        "roi": roi,
        "rounds": rounds,
        "device": device,
        "threads": threads,
        "batch": _BATCH,  # of ours; the plain loop has 1
        **names,
        "videos": results,
        "machine": {**versions, "load": round(load_before, 2)},
    }


def _runner(landmarker: Landmarker) -> str:
    return f"{landmarker.runner.name} {landmarker.contract.precision}"


def compare(
    landmarker: Landmarker,
    plain_model: Landmarker,
    video: Path,
    region: Region,
    folder: Path,
    rounds: int,
) -> dict[str, Any]:
    """Frames a second of every contestant, ratios by round, where ours spends its time.

    speed_up: on the plain loop of the same output, the median of the rounds' ratios; both do the
    same frames, ours in batches of 4, the loop one by one. share_of_model: of the rate of our model
    alone, on crops that are ready, in our batches. apart: how far the plain loop's points are from
    ours. Raises UserError where there is not exactly one box in each frame.
    """
    crops, boxes, size = _crops(landmarker, video, region)
    num_frames, points = len(boxes), dict[str, Trajectory]()
    summaries: dict[str, Summary] = {}

    def ours(name: str) -> None:
        summaries[name] = _detect(landmarker, video, region, folder, _FORMATS[name])

    def plain(name: str, model: Landmarker, overlay: bool = False) -> None:
        points[name] = plain_loop(model, video, boxes, folder, overlay)

    def model() -> None:
        for start in range(0, num_frames, _BATCH):
            landmarker.runner(np.take(crops, range(start, start + _BATCH), axis=0, mode="wrap"))

    def decode() -> None:
        with open_source(video) as frames:
            for _ in frames:
                pass

    calls: dict[str, Callable[[], None]] = {
        "csv": lambda: ours("csv"),
        "plain-csv": lambda: plain("plain-csv", plain_model),
        "overlay": lambda: ours("overlay"),
        "plain-overlay": lambda: plain("plain-overlay", plain_model, overlay=True),
    }
    if _runner(landmarker) != _runner(plain_model):
        calls["same-runner"] = lambda: plain("same-runner", landmarker)
    calls |= {"model": model, "decode": decode}
    seconds, cpu = _measure(calls, rounds, video.name)
    rows = {name: _row(num_frames, seconds[name], cpu[name]) for name in calls}
    for name, summary in summaries.items():
        rows[name] |= _ratios(seconds, name) | {
            "bottleneck": summary.bottleneck,
            "busy_seconds": {k: round(v, 2) for k, v in summary.busy_seconds.items()},
        }
    return {
        "file": video.name,
        "frames": num_frames,
        "size": list(size),
        "apart": apart(read_ours(folder / "landmarks.csv"), points["plain-csv"]),
        "rows": rows,
    }


def _measure(
    calls: dict[str, Callable[[], None]], rounds: int, name: str
) -> tuple[dict[str, Seconds], dict[str, list[float]]]:
    """Seconds of each call in every round, after one to warm up, and those of the processor."""
    cpu: dict[str, list[float]] = {each: [] for each in calls}

    def counted(each: str) -> None:
        before = process_time()
        calls[each]()
        cpu[each].append(process_time() - before)

    console().print(f"{name}: {len(calls)} contestants, one round to warm up")
    most = sum(map(seconds_of, calls.values())) * rounds
    console().print(f"{name}: {rounds} rounds, some {most:.0f} s")
    turns = {each: functools.partial(counted, each) for each in calls}
    seconds = take_turns(turns, rounds, warm_up=0)
    return {each: values[:, 0] for each, values in seconds.items()}, cpu


def _row(num_frames: int, seconds: Seconds, cpu: Sequence[float]) -> dict[str, Any]:
    return {
        "frames_per_second": round(float(num_frames / np.median(seconds)), 1),
        "slowest": round(float(num_frames / seconds.max()), 1),
        "fastest": round(float(num_frames / seconds.min()), 1),
        "cpu_seconds": round(float(np.median(cpu)), 3),
        "seconds": [round(float(value), 4) for value in seconds],
    }


def _ratios(seconds: dict[str, Seconds], name: str) -> dict[str, float]:
    def times(other: str) -> float:
        return round(float(np.median(seconds[other] / seconds[name])), 3)

    ratios = {"speed_up": times(f"plain-{name}"), "share_of_model": times("model")}
    if name == "csv" and "same-runner" in seconds:
        ratios["speed_up_same_runner"] = times("same-runner")
    return ratios


def _in_fp32(model: Path, contract: Contract, folder: Path) -> Path:
    """The model, or the fp32 one of the same pack; raises UserError where that is not here."""
    if contract.precision == "fp32":
        return model
    pack = pack_of(contract, model.parent)
    if pack is None:
        raise UserError(
            f"{model}: got {contract.precision} without its pack, sha256 "
            f"{contract.pack_sha256[:12]}…, expected it beside it or in {workspace.RUNS}/, for the "
            "plain loop runs it in fp32; put it there"
        )
    compose_file(pack, folder / "fp32.onnx")
    return folder / "fp32.onnx"


def _crops(
    landmarker: Landmarker, video: Path, region: Region
) -> tuple[NDArray[np.uint8], list[Box], tuple[int, int]]:
    """Crops to run the model on alone, the box of every frame, and the frames' (height, width)."""
    crops: list[NDArray[np.uint8]] = []
    boxes: list[Box] = []
    with open_source(video) as frames:
        for frame in frames:
            size = frame.size
            boxes.append(_box(frame, region, landmarker.contract.crop_scale, video.name))
            if len(crops) < _LEAST_CROPS:
                crops.append(landmarker.crop(frame.image, boxes[-1]))
    return np.stack(crops), boxes, (size[0], size[1])


def _box(frame: Frame, region: Region, scale: float, name: str) -> Box:
    targets = region.targets(frame)
    if len(targets) != 1:
        raise UserError(
            f"roi: got {len(targets)} boxes in frame {frame.index} of {name}, expected exactly one "
            "a frame, which is all that the plain loop can do; give full, center or another .csv"
        )
    box, (height, width) = targets[0].box, frame.size
    x, y, side, _ = square_around(box, scale)
    if x >= width - 1 or y >= height - 1 or x + side <= 1 or y + side <= 1:
        raise UserError(
            f"roi: got a box beyond frame {frame.index} of {name}, expected one that overlaps it, "
            "for the plain loop can cut no other; give another .csv"
        )
    return box


def _detect(
    landmarker: Landmarker, video: Path, region: Region, folder: Path, formats: tuple[str, ...]
) -> Summary:
    with open_source(video) as frames:
        sinks, _ = make_sinks(frames, folder, landmarker.names, formats, force=True)
        return detect(frames, landmarker, region, sinks, _BATCH)
