"""From a video file to CSV and overlay: `lmk detect` beside a plain OpenCV loop of the same model.

The plain loop is what one writes by hand: read a frame, crop it, run the ONNX file with ONNX
Runtime, draw circles, write the frame. Same file, same model, same threads, taking turns. A video
`long:SECONDS` is one of 1920×1080 made for the run. Absolute rates vary between machines: read the
ratios.
"""

from __future__ import annotations

import csv
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table

from lmk.benchmarks.bench_subject import pack_of
from lmk.benchmarks.clip import write_clip
from lmk.benchmarks.machine import interleaved, machine
from lmk.runtime import workspace
from lmk.runtime.boxes import parse_roi
from lmk.runtime.contract import Contract
from lmk.runtime.errors import UserError
from lmk.runtime.images import square_around
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.named import compose_file, model_file
from lmk.runtime.pipeline import detect
from lmk.runtime.region import Region
from lmk.runtime.results import make_sinks
from lmk.runtime.sources import Frame, open_source
from lmk.runtime.summary import Summary

_LEAST_CROPS = 32
_BATCH = 4
_OURS = ("csv", "csv+overlay")


def bench_video(
    model: Path,
    videos: Sequence[str],
    roi: str = "center",
    rounds: int = 5,
    threads: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """`compare` for every video, with the machine; `long:SECONDS` is made for the run.

    Raises UserError without OpenCV and for what `open_source` and `parse_roi` refuse.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the plain loop needs OpenCV ({error}); pip install opencv-python-headless"
        ) from error
    model = model_file(workspace.pick(model, "onnx"))
    results = []
    with tempfile.TemporaryDirectory() as name:
        for video in videos:
            path = Path(video)
            if video.startswith("long:"):
                path = write_clip(Path(name) / "long.mp4", float(video.removeprefix("long:")))
            results.append(compare(model, path, roi, Path(name), rounds, threads, device))
    versions = machine("openvino", "opencv-python-headless")
    return {
        "model": model.name,
        "roi": roi,
        "rounds": rounds,
        "device": device,
        "threads": threads,
        "videos": results,
        "machine": versions,
    }


def print_videos(result: dict[str, Any], screen: Console) -> None:
    """A table for each video."""
    heads = ["frames/s", "x plain", "of model", "CPU s", "busy: decode", "crop", "run", "write"]
    for video in result["videos"]:
        height, width = video["size"]
        title = f"{video['file']}: {video['frames']} frames of {width}×{height}"
        table = Table(
            "", *(Column(h, justify="right") for h in heads), title=title, title_justify="left"
        )
        for name, row in video["rows"].items():
            busy = row.get("busy_seconds", {})
            ratios = (row.get("speed_up_on_plain"), row.get("share_of_model_alone"))
            cells = [
                f"{row['frames_per_second']:.1f}",
                *("" if r is None else f"{r:.2f}" for r in ratios),
            ]
            cells += [f"{row['cpu_seconds']:.1f}", *(f"{value:.1f}" for value in busy.values())]
            table.add_row(name, *cells)
        screen.print(table)


def compare(
    model: Path,
    video: Path,
    roi: str,
    folder: Path,
    rounds: int,
    threads: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Frames a second of every contestant, ratios by round, where ours spends its time.

    share_of_model_alone: of the rate of the model alone, on crops that are ready, in the same
    batches. The plain loop runs it in fp32 with ONNX Runtime on the CPU, whatever ours does.
    """
    region = parse_roi(roi)
    summaries: dict[str, Summary] = {}
    with (
        load(model, device, threads) as landmarker,
        load(_in_fp32(model, landmarker.contract, folder), threads=threads) as plain_model,
    ):
        crops, num_frames, size = _crops(landmarker, video, region)

        def ours(formats: tuple[str, ...]) -> Callable[[], object]:
            def call() -> None:
                key = "+".join(formats)
                summaries[key] = _detect(landmarker, video, region, folder, formats)

            return call

        def plain(overlay: bool) -> Callable[[], object]:
            return lambda: plain_loop(plain_model, video, region, folder, overlay)

        calls = {
            "csv": _Counted(ours(("csv",))),
            "plain csv": _Counted(plain(False)),
            "csv+overlay": _Counted(ours(("csv", "overlay"))),
            "plain csv+overlay": _Counted(plain(True)),
            "model alone": _Counted(lambda: _batches(landmarker, crops, num_frames)),
            "decode alone": _Counted(lambda: _decode(video)),
        }
        seconds = {k: np.array(v) for k, v in interleaved(calls, rounds, warmup=1).items()}
    rows: dict[str, Any] = {}
    for name, values in seconds.items():
        rows[name] = {
            "frames_per_second": round(float(num_frames / np.median(values)), 1),
            "cpu_seconds": round(float(np.median(calls[name].cpu)), 3),
        }
    for name in _OURS:
        ratio = seconds[f"plain {name}"] / seconds[name]
        alone = seconds["model alone"] / seconds[name]
        rows[name] |= {
            "speed_up_on_plain": round(float(np.median(ratio)), 2),
            "share_of_model_alone": round(float(np.median(alone)), 3),
            "bottleneck": summaries[name].bottleneck,
            "busy_seconds": {k: round(v, 2) for k, v in summaries[name].busy_seconds.items()},
        }
    return {"file": video.name, "frames": num_frames, "size": list(size), "rows": rows}


def _in_fp32(model: Path, contract: Contract, folder: Path) -> Path:
    """The model, or the fp32 one of the same pack."""
    pack = pack_of(contract, model.parent)
    if contract.precision == "fp32" or pack is None:
        return model
    compose_file(pack, folder / "fp32.onnx")
    return folder / "fp32.onnx"


class _Counted:
    """A call whose processor seconds are kept."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call, self.cpu = call, list[float]()

    def __call__(self) -> None:
        before = _cpu_seconds()
        self._call()
        self.cpu.append(_cpu_seconds() - before)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def plain_loop(
    landmarker: Landmarker, video: Path, region: Region, folder: Path, overlay: bool
) -> None:
    """Frame by frame with OpenCV, as one writes it by hand; the session is our runner's."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = None
    if overlay:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        rate = capture.get(cv2.CAP_PROP_FPS)
        writer = cv2.VideoWriter(str(folder / "plain.mp4"), code, rate, size)
    with (folder / "plain.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        index = 0
        while True:
            more, image = capture.read()
            if not more:
                break
            points, scores = _plain_step(landmarker, np.asarray(image, np.uint8), region, index)
            rows.writerow([index, *np.column_stack([points, scores]).ravel().tolist()])
            if writer is not None:
                for x, y in points:
                    cv2.circle(image, (round(float(x)), round(float(y))), 4, (0, 255, 0), -1)
                writer.write(image)
            index += 1
    capture.release()
    if writer is not None:
        writer.release()


def _plain_step(
    landmarker: Landmarker, image: NDArray[np.uint8], region: Region, index: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import cv2

    side = landmarker.contract.input_size
    [target] = region.targets(Frame("plain", index, 0.0, image))
    x, y, width, _ = square_around(target.box, landmarker.contract.crop_scale)
    left, top, edge = max(0, round(x)), max(0, round(y)), round(width)
    crop = cv2.resize(image[top : top + edge, left : left + edge], (side, side))
    landmarks, scores = landmarker.runner(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)[None])
    return landmarks[0] * (edge / side) + np.array([left, top], np.float32), scores[0]


def _crops(
    landmarker: Landmarker, video: Path, region: Region
) -> tuple[NDArray[np.uint8], int, tuple[int, int]]:
    """Crops to run the model on alone, the number of frames, and their (height, width)."""
    crops: list[NDArray[np.uint8]] = []
    num_frames = 0
    with open_source(video) as frames:
        for frame in frames:
            num_frames += 1
            size = frame.size
            if len(crops) < _LEAST_CROPS:
                crops += [landmarker.crop(frame.image, t.box) for t in region.targets(frame)]
    return np.stack(crops), num_frames, (size[0], size[1])


def _batches(landmarker: Landmarker, crops: NDArray[np.uint8], num_frames: int) -> None:
    for start in range(0, num_frames, _BATCH):
        landmarker.runner(np.take(crops, range(start, start + _BATCH), axis=0, mode="wrap"))


def _decode(video: Path) -> None:
    with open_source(video) as frames:
        for _ in frames:
            pass


def _detect(
    landmarker: Landmarker, video: Path, region: Region, folder: Path, formats: tuple[str, ...]
) -> Summary:
    with open_source(video) as frames:
        sinks, _ = make_sinks(frames, folder, landmarker.names, formats, force=True)
        return detect(frames, landmarker, region, sinks, _BATCH)
