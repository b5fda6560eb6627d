"""What each choice of adaptation is worth: one change at a time, same core, data and steps.

    python -m lmk.benchmarks.studies.ablation --folder runs/ablation --core CORE --data NAME \\
        [--test NAME]… --steps 300

Call it again to go on: what is finished is not made again. Writes ablation.json and ablation.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.machine import machine
from lmk.benchmarks.plots import markdown_table
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header
from lmk.runtime.terminal import FILE_PATH
from lmk.train.adapting import adapt, has_begun
from lmk.train.commands import CROP
from lmk.train.config import AdaptConfig, EvaluateConfig
from lmk.train.datasets import CropMode, load_decoded
from lmk.train.judge import evaluate
from lmk.train.network import load_pack

# The default and one change each. Two more seeds of the default tell chance from effect.
ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    "default, seed 1": {"seed": 1},
    "default, seed 2": {"seed": 2},
    "wide views": {"shift": 0.15, "scale": 0.25},
    "bend 0.05": {"bend": 0.05},
    "jitter 0.2": {"jitter": 0.2},
    "average 0.99": {"average": 0.99},
    "identity 0.1": {"identity": 0.1},
    "ramp 0.3": {"ramp": 0.3},
    "equivariance 0": {"equivariance": 0.0},
    "equivariance 0.1": {"equivariance": 0.1},
    "equivariance 1": {"equivariance": 1.0},
    "separation 0": {"separation": 0.0},
    "separation 0.3": {"separation": 0.3},
    "projection rate 1": {"projection_rate": 1.0},
    "projection rate 4": {"projection_rate": 4.0},
    "W not whitened, rate 1": {"whiten": False, "projection_rate": 1.0},
    "W not whitened, rate 10": {"whiten": False, "projection_rate": 10.0},
    "step decay": {"schedule": "step"},
    "absolute perceptual": {"relative": False},
    "no perceptual": {"perceptual": "none"},
    "vgg19": {"perceptual": "vgg19"},
    "vgg19, not normalised": {"perceptual": "vgg19", "vgg_normalise": False},
}
MEASURES = {
    "forward_percent": "forward, %",
    "backward_percent": "backward, %",
    "consistency_px": "consistency, px",
}


@click.command()
@click.option("--folder", type=FILE_PATH, required=True)
@click.option("--core", type=FILE_PATH, required=True)
@click.option("--data", required=True)
@click.option("--test", multiple=True, help="Judge on these  [default: the data].")
@click.option("--steps", type=int, default=300, show_default=True)
@click.option("--row", multiple=True, type=click.Choice(list(ROWS)), help="[default: all]")
@click.option("--crop", type=CROP, default="image")
@click.option("--set", "changes", multiple=True, help="OPTION=VALUE for every row, as JSON.")
@click.option("--vgg", type=FILE_PATH, help="For the rows that need it.")
@click.option("--test-images", type=int, default=1000, show_default=True)
def main(folder: Path, core: Path, row: tuple[str, ...], vgg: Path | None, **o: Any) -> None:
    """Adapt and judge each row, and write the table so far after each."""
    results = folder / "ablation.json"
    found = json.loads(results.read_text()) if results.exists() else {"rows": {}}
    common = {name: json.loads(value) for name, value in (c.split("=", 1) for c in o["changes"])}
    found |= {"machine": machine(), "core": core.name, "steps": o["steps"], "data": o["data"]}
    found |= {"common": common, "crop": o["crop"]}
    for name in row or [n for n in ROWS if vgg or "vgg" not in n]:
        change = {**common, **ROWS[name]}
        config = AdaptConfig(
            output=folder / f"{name.replace(', ', '-').replace(' ', '-')}.safetensors",
            core=core,
            steps=o["steps"],
            vgg=vgg if "vgg" in name else None,
            report=False,
            **change,
        )
        tests = o["test"] or (o["data"],)
        found["rows"][name] = adapt_and_judge(config, o["data"], o["crop"], tests, o["test_images"])
        write_bytes(results, json.dumps(found, indent=1).encode())
        write_bytes(folder / "ablation.md", table(found["rows"]).encode())


def adapt_and_judge(
    config: AdaptConfig, data: str, crop: CropMode, tests: Sequence[str], images: int
) -> dict[str, Any]:
    """Adapt unless that is done, and judge on each test set: seconds, and measures by set."""
    assert config.core is not None
    size = read_header(config.core)["network"]["input_size"]
    config = replace(config, input_size=size, resume=has_begun(config.output))
    if not (config.output.exists() and read_header(config.output)["finished"]):
        adapt(config, load_decoded(data, None, size, crop))
    model, header = load_pack(config.output, config.core)
    judging = EvaluateConfig(images=images, repeats=1)
    reports = {}
    for test in tests:
        held = load_decoded(test, None, size, crop)
        report = evaluate(model, held, judging, config.seed, crop=crop)
        reports[test] = {name: report[name] for name in MEASURES if name in report}
    return {"seconds": header["seconds"], "tests": reports}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows as Markdown, a column for each measure of each test set."""
    columns = dict.fromkeys(
        (test, measure)
        for row in rows.values()
        for test, report in row["tests"].items()
        for measure in report
    )
    head = ["", *(f"{test}: {MEASURES[measure]}" for test, measure in columns), "seconds"]
    lines = []
    for name, row in rows.items():
        values = [row["tests"].get(test, {}).get(measure) for test, measure in columns]
        texts = ("" if value is None else f"{value:.2f}" for value in values)
        lines.append([name, *texts, f"{row['seconds']:.0f}"])
    return markdown_table(head, lines) + "\n"


if __name__ == "__main__":
    main()
