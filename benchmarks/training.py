"""Images a second of training, ours beside a plain loop, and what the time of a step goes to.

    python -m lmk.benchmarks.training --data shoes --core-data poses

Both loops have the same networks, losses and batches, and take turns in one run; the plain one is
`plain.py`. The last line is one JSON object: median rates, the median of the ratios of neighbours,
and the operators that take most of our step.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from lmk.benchmarks import plain
from lmk.benchmarks.machine import interleaved, machine
from lmk.runtime.report import console
from lmk.train.adapt import Adaptation
from lmk.train.config import AdaptConfig, CoreConfig, Width, for_device
from lmk.train.core import Supervision
from lmk.train.datasets.decoded import cache_folder, decode
from lmk.train.datasets.find import open_dataset
from lmk.train.device import pick_device, pick_dtype
from lmk.train.hourglass import WIDTHS, HourglassConfig, LandmarkNetwork
from lmk.train.run import Run
from lmk.train.split import split_indices

OPERATORS = 8  # of the profile, those that take most


@click.command()
@click.option("--data", default="builtin:butterfly", show_default=True)
@click.option("--core-data", default="builtin:puppet", show_default=True)
@click.option("--width", type=click.Choice(list(WIDTHS)), default="medium", show_default=True)
@click.option("--input-size", default=128, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Of a turn.")
@click.option("--repeats", default=7, show_default=True, help="Turns of each loop.")
@click.option("--workers", default=2, show_default=True, help="Of the plain loop's DataLoader.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=int)
def main(threads: int | None, **options: Any) -> None:
    """Compare adapt and train-core with plain loops of the same losses."""
    if threads:
        torch.set_num_threads(threads)
    device = pick_device(options.pop("device"))
    result: dict[str, Any] = {
        **options,
        "dtype": str(pick_dtype("auto", device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "adapt": compare(*adaptation(device, **options), options, device),
        "train_core": compare(*supervision(device, **options), options, device),
        "machine": machine(),
    }
    screen = console()
    for name in ("adapt", "train_core"):
        rates = result[name]
        screen.print(
            f"{name:10} ours {rates['images_per_second']:8.1f} images/s, plain "
            f"{rates['plain_images_per_second']:8.1f}, {rates['speed_up']:.2f} times"
        )
    print(json.dumps(result))


Loops = tuple[Callable[[], None], Callable[[], None], int]  # ours, plain, images a step


def adaptation(
    device: torch.device, data: str, width: Width, input_size: int, workers: int, **_: Any
) -> Loops:
    """Both loops of adaptation by projection, from a core of random weights."""
    core = _network(width, input_size, 16)
    dataset = open_dataset(data)
    decoded = decode(dataset, input_size, "image", cache_folder())
    config = AdaptConfig(core=Path("random"), input_size=input_size, steps=10**6, report=False)
    config = for_device(replace(config, width=width), device.type)
    ours = Adaptation(config, core, decoded, device, _unwatched(config))
    step = _counted(ours.step)
    return step, plain.adapting(config, core, dataset, device, workers), config.batch


def supervision(
    device: torch.device, core_data: str, width: Width, input_size: int, workers: int, **_: Any
) -> Loops:
    """Both loops of the training of a core."""
    dataset = open_dataset(core_data)
    decoded = decode(dataset, input_size, "annotation", cache_folder())
    config = CoreConfig(input_size=input_size, steps=10**6)
    config = for_device(replace(config, width=width), device.type)
    train, held_out = split_indices(decoded.splits, config.seed)
    ours = Supervision(config, decoded, train, held_out, device, _unwatched(config))
    network = _network(width, input_size, len(dataset.landmark_names))
    step = _counted(ours.step)
    return step, plain.supervising(config, network, dataset, device, workers), config.batch


def compare(
    ours: Callable[[], None],
    other: Callable[[], None],
    batch: int,
    options: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Rates of two loops in turns, and the profile of ours."""
    steps = options["steps"]
    loops = {name: _turn(step, steps, device) for name, step in (("ours", ours), ("plain", other))}
    seconds = {k: np.array(v) for k, v in interleaved(loops, options["repeats"], 1).items()}
    images = steps * batch
    return {
        "batch": batch,
        "images_per_second": round(float(images / np.median(seconds["ours"])), 2),
        "plain_images_per_second": round(float(images / np.median(seconds["plain"])), 2),
        "speed_up": round(float(np.median(seconds["plain"] / seconds["ours"])), 3),
        "step_ms_p99": round(float(np.percentile(seconds["ours"], 99)) / steps * 1e3, 1),
        "operators_percent": _operators(loops["ours"], device),
    }


def _turn(step: Callable[[], None], steps: int, device: torch.device) -> Callable[[], None]:
    def turn() -> None:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return turn


def _counted(step: Callable[[int], object]) -> Callable[[], None]:
    number = iter(range(10**6))
    return lambda: (step(next(number)), None)[1]


def _operators(turn: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Shares of the time of the operators that take most of it, in percent."""
    on_gpu = device.type == "cuda"
    kinds = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    with profile(activities=kinds) as seen:
        turn()
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in seen.key_averages()
    }
    most = sorted(times, key=lambda name: -times[name])[:OPERATORS]
    return {name: round(100 * times[name] / sum(times.values()), 1) for name in most}


def _network(width: Width, input_size: int, landmarks: int) -> LandmarkNetwork:
    torch.manual_seed(0)
    return LandmarkNetwork(HourglassConfig(landmarks, WIDTHS[width], input_size))


def _unwatched(config: AdaptConfig | CoreConfig) -> Run:
    # Never entered, so that nothing is written.
    return Run(Path(tempfile.gettempdir()), config, 10**6, None, Console(quiet=True))


if __name__ == "__main__":
    main()
