"""Export time; ONNX Runtime against eager PyTorch; `lmk detect` against ONNX Runtime alone.

    python -m lmk.benchmarks.chain PACK --video FILE [--core FILE] [--roi center] [--repeats 200]

Same crops, same threads, taking turns. Absolute times vary between machines: read the ratios. The
last line is the whole result as JSON.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lmk.benchmarks.machine import interleaved, machine, milliseconds
from lmk.export.graph import DetectorGraph
from lmk.export.pack import export_pack
from lmk.runtime import workspace
from lmk.runtime.boxes import parse_roi
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.ort import OrtRunner
from lmk.runtime.pipeline import detect
from lmk.runtime.results import make_sinks
from lmk.runtime.sources import open_source
from lmk.train.category import load_pack


@click.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--core", type=click.Path(path_type=Path))
@click.option("--video", type=click.Path(path_type=Path), required=True)
@click.option("--roi", default="center", show_default=True)
@click.option("--repeats", default=200, show_default=True)
def main(pack: Path, core: Path | None, video: Path, roi: str, repeats: int) -> None:
    """Measure, print a line a figure, and JSON last."""
    core = core or workspace.core_of(pack)
    screen = Console(highlight=False)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.onnx"
        started = perf_counter()
        contract = export_pack(pack, core, model)
        result: dict[str, Any] = {
            "pack": pack.name,
            "export_seconds": round(perf_counter() - started, 2),
            "export_max_px": contract.drift["max_px"],
        }
        crops = _crops(model, video, roi)
        for batch in (1, 32):
            result[f"batch_{batch}"] = latency(pack, core, model, crops[:batch], repeats // batch)
            screen.print(f"batch {batch}: {result[f'batch_{batch}']}")
        result["video"] = pipeline(model, video, roi, Path(name))
        screen.print(f"video: {result['video']}")
    print(json.dumps({**result, "machine": machine(), "threads": torch.get_num_threads()}))


def _crops(model: Path, video: Path, roi: str) -> NDArray[np.uint8]:
    """Every frame of the video as the model sees it, repeated to at least 32."""
    region = parse_roi(roi)
    with open_source(video) as frames, load(model) as landmarker:
        crops = [
            landmarker.crop(frame.image, target.box)
            for frame in frames
            for target in region.targets(frame)
        ]
    return np.stack((crops * (32 // len(crops) + 1)) if len(crops) < 32 else crops)


@torch.no_grad()
def latency(
    pack: Path, core: Path | None, model: Path, crops: NDArray[np.uint8], repeats: int
) -> dict[str, Any]:
    """Eager (as trained, W·theta every call; and folded) against ONNX Runtime on the same crops."""
    from lmk.export.fold import fold

    network, _ = load_pack(pack, core)
    eager, folded = DetectorGraph(network), DetectorGraph(fold(network))
    images = torch.from_numpy(crops)
    with OrtRunner(model, threads=torch.get_num_threads()) as runner:
        seconds = interleaved(
            {
                "eager": lambda: eager(images),
                "eager_folded": lambda: folded(images),
                "onnxruntime": lambda: runner(crops),
            },
            max(repeats, 10),
        )
    result: dict[str, Any] = {name: milliseconds(values) for name, values in seconds.items()}
    fast = np.array(seconds["onnxruntime"])
    result["speed_up"] = round(float(np.median(np.array(seconds["eager"]) / fast)), 2)
    result["speed_up_on_folded"] = round(
        float(np.median(np.array(seconds["eager_folded"]) / fast)), 2
    )
    return result


def pipeline(model: Path, video: Path, roi: str, folder: Path, rounds: int = 7) -> dict[str, Any]:
    """Frames a second from file to CSV, and to CSV and overlay, over those of the model alone."""
    region = parse_roi(roi)
    threads = torch.get_num_threads()
    with load(model, threads=threads) as landmarker:
        crops = _crops(model, video, roi)
        runs = {
            "model_alone": lambda: _batches(landmarker, crops),
            "csv": lambda: _detect(landmarker, video, region, folder, overlay=False),
            "csv_and_overlay": lambda: _detect(landmarker, video, region, folder, overlay=True),
        }
        seconds = {k: np.array(v) for k, v in interleaved(runs, rounds, warmup=1).items()}
    alone = seconds["model_alone"]
    result: dict[str, Any] = {"file": video.name, "frames": len(crops)}
    for name, values in seconds.items():
        result[f"{name}_per_second"] = round(float(len(crops) / np.median(values)), 1)
        result[f"{name}_share"] = round(float(np.median(alone / values)), 3)
    return result


def _batches(landmarker: Landmarker, crops: NDArray[np.uint8], batch: int = 4) -> None:
    for start in range(0, len(crops), batch):
        landmarker.runner(crops[start : start + batch])


def _detect(landmarker: Landmarker, video: Path, region: Any, folder: Path, overlay: bool) -> None:
    formats = ["csv", "overlay"] if overlay else ["csv"]
    with open_source(video) as frames:
        sinks, _ = make_sinks(frames, folder, landmarker.names, formats, force=True)
        detect(frames, landmarker, region, sinks)


if __name__ == "__main__":
    main()
