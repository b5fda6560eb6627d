"""Images a second of training, ours beside a plain loop, and what the time of a step goes to.

    python -m lmk.benchmarks.studies.training --data shoes --core-data poses

All loops have the same networks, losses and batches, and take turns in one run; the plain one is
`training_plain.py`, ours are those of `--compile`. The last line is one JSON object: median rates,
the median of the ratios of neighbours, and what our step goes to.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lmk.benchmarks.machine import machine
from lmk.benchmarks.studies import training_plain
from lmk.benchmarks.timing import seconds_of, take_turns
from lmk.runtime.files import cache_folder
from lmk.runtime.terminal import console
from lmk.train.adapting import Adaptation
from lmk.train.config import AdaptConfig, CoreConfig, Width, for_device
from lmk.train.core import Supervision
from lmk.train.datasets import decode, open_dataset
from lmk.train.device import pick_device, pick_dtype
from lmk.train.loop import Choice, Compiled, TrainingRun
from lmk.train.network import WIDTHS, HourglassConfig, LandmarkNetwork
from lmk.train.split import split_indices

OPERATORS = 8  # those that take most
# What the names of kernels hold, tried in this order: inductor names one after all that it fuses.
_KINDS = {
    "fused by inductor": r"^triton_",
    "copy": r"memcpy|memset|copy_kernel|nchwtonhwc|nhwctonchw|cat",
    "batch-norm": r"batch_?norm|bn_(fw|bw)",
    "convolution": r"conv|fprop|dgrad|wgrad|cudnn|xmma",
    "matrix product": r"gemm|gemv|nvjet|cutlass|cublas",
    "optimiser": r"multi_tensor|adam",
    "reduction": r"reduce|norm|softmax",
    "pointwise": r"elementwise",
}

Loops = dict[str, training_plain.TrainStep]  # plain, and ours by the choice of --compile
CHOICES: dict[str, tuple[Choice, ...]] = {"cpu": ("off",), "cuda": ("off", "on", "graphs")}


@click.command()
@click.option("--data", default="builtin:butterfly", show_default=True)
@click.option("--core-data", default="builtin:puppet", show_default=True)
@click.option("--width", type=click.Choice(list(WIDTHS)), default="medium", show_default=True)
@click.option("--input-size", default=128, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Of a turn.")
@click.option("--repeats", default=7, show_default=True, help="Turns of each loop.")
@click.option("--workers", default=2, show_default=True, help="Of the plain loop's DataLoader.")
@click.option(
    "--compile",
    "choices",
    type=click.Choice(CHOICES["cuda"]),
    multiple=True,
    help="May be repeated.  [default: off, with CUDA all]",
)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=int)
def main(threads: int | None, **options: Any) -> None:
    """Compare adapt and train-core with plain loops of the same losses."""
    if threads:
        torch.set_num_threads(threads)
    device = pick_device(options.pop("device"))
    options["choices"] = options["choices"] or CHOICES[device.type]
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
        screen.print(f"{name:10} plain {rates['plain_images_per_second']:8.1f} images/s")
        for choice, ours in rates["ours"].items():
            screen.print(
                f"  compile {choice:6} {ours['images_per_second']:8.1f}, {ours['speed_up']:.2f} "
                f"times; compiled in {ours['compile_s']} s"
            )
    print(json.dumps(result))


def adaptation(
    device: torch.device,
    data: str,
    width: Width,
    input_size: int,
    workers: int,
    choices: tuple[Choice, ...] = ("off",),
    **_: Any,
) -> tuple[Loops, dict[str, float], int]:
    """Loops of adaptation by projection from a core of random weights, seconds, images a step.

    What was compiled in how many seconds; a choice that could not be compiled has no loop.
    """
    core = _network(width, input_size, 16)
    dataset = open_dataset(data)
    decoded = decode(dataset, input_size, "image", cache_folder())
    config = AdaptConfig(core=Path("random"), input_size=input_size, steps=10**6, report=False)
    config = for_device(replace(config, width=width), device.type)
    loops = {"plain": training_plain.adapting(config, core, dataset, device, workers)}
    seconds: dict[str, float] = {}
    for choice in choices:
        ours = replace(config, compile=choice)
        job = Adaptation(ours, core, decoded, device, _unwatched(ours))
        if not _failed(job.pair_losses):
            loops[choice], seconds[choice] = _counted(job.step), _compiling(job.pair_losses)
    return loops, seconds, config.batch


def supervision(
    device: torch.device,
    core_data: str,
    width: Width,
    input_size: int,
    workers: int,
    choices: tuple[Choice, ...] = ("off",),
    **_: Any,
) -> tuple[Loops, dict[str, float], int]:
    """The same of the training of a core."""
    dataset = open_dataset(core_data)
    decoded = decode(dataset, input_size, "annotation", cache_folder())
    config = CoreConfig(input_size=input_size, steps=10**6)
    config = for_device(replace(config, width=width), device.type)
    train, held_out = split_indices(decoded.splits, config.seed)
    network = _network(width, input_size, len(dataset.landmark_names))
    loops = {"plain": training_plain.supervising(config, network, dataset, device, workers)}
    seconds: dict[str, float] = {}
    for choice in choices:
        ours = replace(config, compile=choice)
        job = Supervision(ours, decoded, train, held_out, device, _unwatched(ours))
        if not _failed(job.losses_of):
            loops[choice], seconds[choice] = _counted(job.step), _compiling(job.losses_of)
    return loops, seconds, config.batch


def _failed(losses_of: object) -> bool:
    return isinstance(losses_of, Compiled) and losses_of.failed


def _compiling(losses_of: object) -> float:
    return round(losses_of.seconds, 1) if isinstance(losses_of, Compiled) else 0.0


def compare(
    loops: Loops,
    compiling: dict[str, float],
    batch: int,
    options: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Rates of the loops in turns, and what the time of ours goes to."""
    steps = options["steps"]
    turns = {name: _turn(step, steps, device) for name, step in loops.items()}
    seconds = take_turns(turns, options["repeats"], warm_up=1)
    plain_seconds = seconds.pop("plain")
    ours = {
        choice: {
            "images_per_second": round(float(steps * batch / np.median(taken)), 2),
            "speed_up": round(float(np.median(plain_seconds / taken)), 3),
            "step_ms_p99": round(float(np.percentile(taken, 99)) / steps * 1e3, 1),
            "compile_s": compiling[choice],
            **breakdown(turns[choice], steps, device),
        }
        for choice, taken in seconds.items()
    }
    rate = round(float(steps * batch / np.median(plain_seconds)), 2)
    return {"batch": batch, "plain_images_per_second": rate, "ours": ours}


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


def _network(width: Width, input_size: int, landmarks: int) -> LandmarkNetwork:
    torch.manual_seed(0)
    return LandmarkNetwork(HourglassConfig(landmarks, WIDTHS[width], input_size))


def _unwatched(config: AdaptConfig | CoreConfig) -> TrainingRun:
    # Never entered, so that nothing is written.
    return TrainingRun(Path(tempfile.gettempdir()), config, 10**6, None, console())


def breakdown(turn: Callable[[], None], steps: int, device: torch.device) -> dict[str, Any]:
    """What the time of a turn of `steps` steps goes to, in percent; `turn` waits for the GPU."""
    return _kernels(turn, steps) if device.type == "cuda" else _operators(turn)


def _operators(turn: Callable[[], None]) -> dict[str, Any]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        turn()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    most = sorted(times, key=lambda name: -times[name])[:OPERATORS]
    return {
        "operators_percent": {name: _percent(times[name], sum(times.values())) for name in most}
    }


def _kernels(turn: Callable[[], None], steps: int) -> dict[str, Any]:
    """A GPU that is not busy waits for the CPU to start kernels: fewer or graphs would help."""
    elapsed_us = seconds_of(turn) * 1e6  # a profiler would slow it down
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        turn()
    events = [event for event in seen.key_averages() if event.device_type == DeviceType.CUDA]
    times: Counter[str] = Counter()
    for event in events:
        times[kind_of(event.key)] += event.self_device_time_total
    busy = sum(times.values())
    return {
        "kernels_percent": {kind: _percent(us, busy) for kind, us in times.most_common()},
        "kernels_per_step": round(sum(event.count for event in events) / steps),
        "gpu_busy_percent": _percent(busy, elapsed_us),
    }


def kind_of(kernel: str) -> str:
    """What a GPU kernel of that name does, in a word or three."""
    for kind, pattern in _KINDS.items():
        if re.search(pattern, kernel.lower()):
            return kind
    return "other"


def _percent(part: float, whole: float) -> float:
    return round(100 * part / max(whole, 1e-9), 1)


if __name__ == "__main__":
    main()
