"""`lmk detect` over a long video: rate, memory over time, share of the processors.

    python -m lmk.benchmarks.studies.memory MODEL --video long:600 [--roi center] [--json FILE]

As the command does it, with its journal, to CSV and overlay. `long:SECONDS` is a video of 1920×1080
made for the run. The last line is the whole result as JSON.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import click
import psutil

from lmk.benchmarks.clip import write_clip
from lmk.benchmarks.machine import machine
from lmk.runtime.detect.tasks import Wanted, make_task
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.model import workspace
from lmk.runtime.pipeline import detect_task
from lmk.runtime.regions import RegionMaker, Where
from lmk.runtime.sources import open_source

_SAMPLE_S = 10.0
_SETTLED_S = 60.0  # by then every buffer has its size


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--video", required=True, help="A file, or long:SECONDS.")
@click.option("--roi", default="center", show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path))
def main(model: Path, video: str, roi: str, file: Path | None) -> None:
    """Print a sample every ten seconds, and JSON last."""
    with (
        tempfile.TemporaryDirectory() as name,
        load(workspace.pick(model, "onnx"), side_by_side=True) as landmarker,
    ):
        path = Path(video)
        if video.startswith("long:"):
            path = write_clip(Path(name) / "long.mp4", float(video.removeprefix("long:")))
        result = watch(landmarker, path, roi, Path(name) / "out")
    line = json.dumps({"model": str(model), "roi": roi, **result, "machine": machine()})
    print(line)
    if file:
        file.write_text(line + "\n")


def watch(landmarker: Landmarker, video: Path, roi: str, folder: Path) -> dict[str, Any]:
    """One detection with a sample of seconds, frames and resident MiB every ten seconds.

    cpu_share: processor time over wall time and cores.
    """
    samples: list[tuple[float, int, float]] = []
    started, cpu = monotonic(), process_time()

    def sample(frames: int) -> None:
        seconds = monotonic() - started
        if not samples or seconds - samples[-1][0] >= _SAMPLE_S:
            mib = psutil.Process().memory_info().rss / 2**20
            samples.append((round(seconds, 1), frames, round(mib, 1)))
            print(f"{seconds:6.0f} s  {frames:8} frames  {samples[-1][2]:8.1f} MiB", flush=True)

    wanted = Wanted(Where(roi))
    with open_source(video) as source:
        regions = RegionMaker(wanted.where, landmarker)
        task = make_task(source, folder, landmarker, wanted, regions)
        summary = detect_task(task, landmarker, wanted.batch, sample)
        size = source.size
    seconds = monotonic() - started
    settled = [mib for at, _, mib in samples if at >= _SETTLED_S] or [samples[-1][2]]
    return {
        "video": video.name,
        "size": size,
        "frames": summary.frames,
        "seconds": round(seconds, 1),
        "frames_per_second": round(summary.frames / seconds, 1),
        "cpu_share": round((process_time() - cpu) / seconds / (os.cpu_count() or 1), 3),
        "bottleneck": summary.bottleneck,
        "busy_seconds": {stage: round(value, 1) for stage, value in summary.busy_seconds.items()},
        "mib_after_first_minute": settled[0],
        "mib_at_end": samples[-1][2],
        "mib_range_after_first_minute": [min(settled), max(settled)],
        "samples": samples,
    }


if __name__ == "__main__":
    main()
