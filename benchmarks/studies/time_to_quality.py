"""How good a pack is after so much training: one run for each budget, each with its own schedule.

    python -m lmk.benchmarks.studies.time_to_quality --folder runs/time --core CORE --data NAME \\
        --test NAME --steps 50 --steps 100 --steps 200 --steps 400

Call it again to go on. Writes time_to_quality.json and a plot. Minutes are those of training alone,
on the machine that the JSON names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.machine import machine
from lmk.benchmarks.plots import line_plot
from lmk.benchmarks.studies.ablation import MEASURES, adapt_and_judge
from lmk.runtime.files import write_bytes
from lmk.runtime.terminal import FILE_PATH
from lmk.train.commands import CROP
from lmk.train.config import AdaptConfig
from lmk.train.datasets import CropMode


@click.command()
@click.option("--folder", type=FILE_PATH, required=True)
@click.option("--core", type=FILE_PATH, required=True)
@click.option("--data", required=True)
@click.option("--test", required=True)
@click.option("--steps", type=int, multiple=True, required=True)
@click.option("--crop", type=CROP, default="image")
@click.option("--test-images", type=int, default=1000, show_default=True)
def main(
    folder: Path,
    core: Path,
    data: str,
    test: str,
    steps: tuple[int, ...],
    crop: CropMode,
    test_images: int,
) -> None:
    """Adapt with each budget, judge, and write what there is so far after each."""
    results = folder / "time_to_quality.json"
    found = json.loads(results.read_text()) if results.exists() else {"budgets": {}}
    about = {"core": core.name, "data": data, "test": test, "crop": crop}
    for budget in sorted(steps):
        config = AdaptConfig(
            output=folder / f"steps-{budget}.safetensors", core=core, steps=budget, report=False
        )
        row = adapt_and_judge(config, data, crop, (test,), test_images)
        found["budgets"][str(budget)] = {"minutes": row["seconds"] / 60, **row["tests"][test]}
        found |= {**about, "machine": machine()}
        write_bytes(results, json.dumps(found, indent=1).encode())
        write_bytes(folder / "time_to_quality.svg", plot(found["budgets"]).encode())


def plot(budgets: Mapping[str, Mapping[str, Any]]) -> str:
    """Measures against minutes of training, as one SVG."""
    rows = [budgets[steps] for steps in sorted(budgets, key=int)]
    series = {
        label: [(row["minutes"], row[measure]) for row in rows]
        for measure, label in MEASURES.items()
        if all(measure in row for row in rows)
    }
    return line_plot("quality against minutes of training", "minutes", "error", series)


if __name__ == "__main__":
    main()
