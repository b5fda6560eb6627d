"""On a machine with a GPU: train what ships, in pieces that each end before a deadline.

    python -m lmk.benchmarks.gpu.train_zoo --data DATA --work WORK --output OUT --minutes 9

Call it again with the same arguments until it says `all done`: every piece goes on where the last
one stopped. WORK holds the states, which are large; OUT gets what is worth carrying home: half
precision core and packs, previews, curves and measures (zoo.json). Full width, bf16, channels-last
come with the device; `--dry-run` does three small steps of everything on built-in data.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.machine import machine
from lmk.benchmarks.reproduce import Budget
from lmk.runtime.files import write_bytes
from lmk.train import checkpoint
from lmk.train.adapt import adapt
from lmk.train.category import load_pack
from lmk.train.config import AdaptConfig, CoreConfig, EvaluateConfig
from lmk.train.core import train_core
from lmk.train.datasets.decoded import CropMode, DecodedSet, decode
from lmk.train.datasets.find import open_dataset
from lmk.train.device import pick_device
from lmk.train.evaluate import evaluate
from lmk.train.run import STATE_NAME


@dataclass(frozen=True)
class Plan:
    """What is trained on what, and for how long."""

    core_data: str
    categories: dict[str, str]  # name -> data
    core: dict[str, Any]
    adapt: dict[str, Any]


FULL = Plan(
    core_data="pose_lspet",
    categories={"faces": "face_mtfl80", "cats": "cat_heads", "shoes": "shoes_zappos"},
    core={"width": "full", "epochs": 110, "batch": 64},
    adapt={"steps": 12_000, "batch": 48, "generator_width": 64, "preview_every": 1000},
)
DRY = Plan(
    core_data="builtin:puppet",
    categories={"butterflies": "builtin:butterfly"},
    core={"width": "small", "input_size": 64, "steps": 3, "batch": 4},
    adapt={"steps": 3, "batch": 4, "generator_width": 16},
)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder that holds the data sets.")
@click.option("--work", type=click.Path(path_type=Path), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, help="End this piece after so long.")
@click.option("--dry-run", is_flag=True)
def main(data: Path | None, work: Path, output: Path, minutes: float | None, dry_run: bool) -> None:
    """Train the core, adapt it to every category, measure each."""
    if data is not None:
        os.environ["LMK_DATA"] = str(data)
    try:
        with Budget(minutes).watch():
            train_all(DRY if dry_run else FULL, work, output)
        print("all done")
    except KeyboardInterrupt:
        print("this piece is over; call again with the same arguments")


def train_all(plan: Plan, work: Path, output: Path) -> None:
    """Do what is not done yet; every stage resumes its own state."""
    core = output / "core.safetensors"
    if not core.exists():
        size = plan.core.get("input_size", 128)
        full = work / "core.safetensors"
        config = CoreConfig(output=full, resume=_started(full), **plan.core)
        train_core(config, _decode(plan.core_data, size, "annotation", work))
        output.mkdir(parents=True, exist_ok=True)
        shutil.copy(full.with_suffix("") / "history.json", output / "core.json")
        checkpoint.halve(full, core)  # packs are adapted from what ships, not from its original
    for name, spec in plan.categories.items():
        if not (output / f"{name}.safetensors").exists():
            _adapt(plan, name, spec, core, work, output)


def _adapt(plan: Plan, name: str, spec: str, core: Path, work: Path, output: Path) -> None:
    full = work / f"{name}.safetensors"
    size = plan.core.get("input_size", 128)
    data = _decode(spec, size, "image", work)
    adapt(AdaptConfig(output=full, core=core, resume=_started(full), **plan.adapt), data)
    model, header = load_pack(full, core)
    model.to(pick_device())
    report = evaluate(model, data, EvaluateConfig(images=1000), header["config"]["seed"])
    results = output / "zoo.json"
    known = json.loads(results.read_text()) if results.exists() else {"machine": machine()}
    known[name] = {**report, "steps": header["step"], "seconds": header["seconds"]}
    write_bytes(results, json.dumps(known, indent=1).encode())
    shutil.copy(full.with_suffix("") / "preview.png", output / f"{name}.png")
    checkpoint.halve(full, output / f"{name}.safetensors")


def _started(output: Path) -> bool:
    return (output.with_suffix("") / STATE_NAME).exists()


def _decode(spec: str, size: int, crop: CropMode, work: Path) -> DecodedSet:
    return decode(open_dataset(spec), size, crop, work / "cache")


if __name__ == "__main__":
    main()
