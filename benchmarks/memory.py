"""Memory of `lmk detect` over a long video: does it grow?

    python -m lmk.benchmarks.memory MODEL --video FILE --minutes 10

The frames of FILE are played again and again through the pipeline into a CSV and an overlay until
the time is over. The last line is JSON: resident MiB over time.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import click

from lmk.benchmarks.machine import machine
from lmk.runtime.boxes import parse_roi
from lmk.runtime.landmarker import load
from lmk.runtime.pipeline import detect
from lmk.runtime.results import make_sinks
from lmk.runtime.sources import Frame, Source, open_source


class Looped(Source):
    """A video played again and again for so many seconds, decoded anew each time."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.name, self.seconds = path, path.stem, seconds
        self.num_frames = None
        with open_source(path) as first:
            self.frame_rate, self.time_base, self.size = (
                first.frame_rate,
                first.time_base,
                first.size,
            )

    @property
    def skipped(self) -> list[str]:
        """Nothing: a file that cannot be read ends the benchmark."""
        return []

    def __iter__(self) -> Iterator[Frame]:
        assert self.frame_rate is not None
        count, end = 0, monotonic() + self.seconds
        while monotonic() < end:
            with open_source(self.path) as frames:
                for frame in frames:
                    time_s = float(count / self.frame_rate)
                    yield Frame(frame.source, count, time_s, frame.image)
                    count += 1

    def close(self) -> None:
        """Every round closes its own decoder."""


def resident_mib() -> float:
    """Memory of this process that lies in RAM (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--video", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", default=10.0, show_default=True)
def main(model: Path, video: Path, minutes: float) -> None:
    """Print the resident memory every ten seconds, and JSON last."""
    samples: list[tuple[float, int, float]] = []
    started = monotonic()

    def watch(frames: int) -> None:
        seconds = monotonic() - started
        if not samples or seconds - samples[-1][0] >= 10:
            samples.append((round(seconds, 1), frames, round(resident_mib(), 1)))
            print(f"{seconds:6.0f} s  {frames:8} frames  {samples[-1][2]:8.1f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as name, load(model) as landmarker:
        source = Looped(video, minutes * 60)
        sinks, _ = make_sinks(source, Path(name), landmarker.names, ["csv", "overlay"], True)
        summary = detect(source, landmarker, parse_roi("center"), sinks, progress=watch)
    after = [sample for sample in samples if sample[0] >= 60]
    result = {
        "video": video.name,
        "frames": summary.frames,
        "mib_after_first_minute": after[0][2],
        "mib_at_end": after[-1][2],
        "mib_range_after_first_minute": [min(s[2] for s in after), max(s[2] for s in after)],
        "samples": samples,
    }
    print(json.dumps({**result, "machine": machine()}))


if __name__ == "__main__":
    main()
