"""Train what ships, in pieces that each end before a deadline.

    python -m lmk.benchmarks.zoo.train_zoo --data DATA --work WORK --output OUT --minutes 9

Call it again with the same arguments until it says `all done`: every piece goes on where the last
one stopped. WORK holds the states, which are large; OUT gets what ships: half precision cores and
packs, maps of their landmarks, and zoo.json, from which `lmk.benchmarks.zoo.cards` makes the
cards. A file that is in OUT already is measured, not made again. OUT/previews is to be looked at
and not to be given on: it shows images of the data. Full width, as for a GPU; `--cpu` makes all of
it at medium width; `--dry-run` does three small steps of everything on built-in data.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.machine import machine
from lmk.benchmarks.paper.reproduction import Budget
from lmk.benchmarks.zoo.measure import PLANS, Stage, ZooPlan, measure, write_map
from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.find import find_in_film
from lmk.runtime.model import workspace
from lmk.runtime.sources import VIDEO_SUFFIXES
from lmk.runtime.terminal import FILE_PATH, console
from lmk.train.adapting import adapt, has_begun, is_finished
from lmk.train.config import AdaptConfig, CoreConfig, DistillConfig
from lmk.train.core import train_core
from lmk.train.datasets import (
    CropMode,
    DecodedSet,
    FilmOptions,
    decode,
    join,
    locate,
    open_dataset,
)
from lmk.train.distill import distill
from lmk.train.network import checkpoint, halve_pack
from lmk.train.options import Duration

RESULTS = "zoo.json"


@click.command()
@click.option("--data", type=FILE_PATH, help="Folder that holds the data sets.")
@click.option("--work", type=FILE_PATH, required=True)
@click.option("--output", type=FILE_PATH, required=True)
@click.option("--minutes", type=Duration(), help="End this piece after so long.")
@click.option("--cpu", is_flag=True, help="Medium width and few steps.")
@click.option("--dry-run", is_flag=True)
def main(
    data: Path | None, work: Path, output: Path, minutes: float | None, cpu: bool, dry_run: bool
) -> None:
    """Train the cores, adapt them to every category, measure each."""
    if data is not None:
        os.environ["LMK_DATA"] = str(data)
    plan = PLANS["dry" if dry_run else "cpu" if cpu else "gpu"]
    try:
        with Budget(minutes).watch():
            make_all(plan, work, output)
        print("all done")
    except KeyboardInterrupt:
        print("this piece is over; call again with the same arguments")
    except UserError as error:
        raise click.ClickException(str(error)) from error


def make_all(plan: ZooPlan, work: Path, output: Path) -> None:
    """Do what is not done yet; every stage resumes its own state.

    Raises UserError if `output` was made by another plan, or a data set is missing.
    """
    path = output / RESULTS
    results = json.loads(path.read_text()) if path.exists() else {}
    if results.setdefault("plan", plan.name) != plan.name:
        raise UserError(
            f"{output}: was made with the plan '{results['plan']}', expected '{plan.name}'; give "
            "the same options or another --output"
        )
    for name, stage in plan.stages.items():
        entries = results.setdefault("entries", {})
        if "sha256" not in entries.get(name, {}):
            console().print(f"{name}: from {', '.join(stage.data)}")
            data = _decode(stage.data, plan.input_size, stage.crop, work)
            path = output / f"{name}.safetensors"
            if not path.exists():
                _make(plan, name, stage, data, work, path)
                entries[name] = {"machine": machine()}  # that it was trained on
                _write(output, results)
            _judge(plan, path, stage, data, work, entries)
            _write(output, results)


def _make(plan: ZooPlan, name: str, stage: Stage, data: DecodedSet, work: Path, path: Path) -> None:
    """Train in `work`, or go on with it, and put what ships at `path`."""
    full = work / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"output": full, "resume": has_begun(full), **stage.options}
    # Packs belong to the core as it ships, and students learn from the pack as it ships.
    core = path.with_name(f"{stage.core}.safetensors") if stage.core else None
    if stage.teacher:
        pack = path.with_name(f"{stage.teacher}.safetensors")
        if not is_finished(full):
            config = DistillConfig(**{**plan.distill, **common})
            distill(config, pack, workspace.core_of(pack), data)
        halve_pack(full, None, path)
    elif core is None:
        if not is_finished(full):
            train_core(CoreConfig(**{**plan.core, **common}), data)
        checkpoint.halve(full, path)
    else:
        if not is_finished(full):
            adapt(AdaptConfig(**{**plan.adapt, "core": core, **common}), data)
        previews = path.parent / "previews"
        previews.mkdir(exist_ok=True)
        shutil.copy(full.with_suffix("") / "preview.png", previews / f"{name}.png")
        halve_pack(full, core, path)


def _judge(
    plan: ZooPlan,
    path: Path,
    stage: Stage,
    data: DecodedSet,
    work: Path,
    entries: dict[str, dict[str, Any]],
) -> None:
    """Measure what ships, draw its map, and complete its entry."""
    sets = {"": data}
    for name, crop in stage.judged_on.items():
        sets[name] = _decode((name,), plan.input_size, crop, work)
    shown = write_map(path.with_suffix(".png"), path, stage, data)
    made = entries.get(path.stem, {"machine": None})  # unknown of a file that was brought along
    entries[path.stem] = {**made, **measure(path, stage, sets), "map_images": shown}


def _write(output: Path, results: dict[str, Any]) -> None:
    write_bytes(output / RESULTS, json.dumps(results, indent=1, allow_nan=False).encode())


def _decode(specs: tuple[str, ...], size: int, crop: CropMode, work: Path) -> DecodedSet:
    opened = [open_dataset(spec, films=_films(spec, work)) for spec in specs]
    return decode(join(opened), size, crop, work / "cache")


def _films(spec: str, work: Path) -> FilmOptions:
    """Where the objects of a film are: they are looked for first."""
    if Path(spec).suffix.lower() not in VIDEO_SUFFIXES:
        return FilmOptions()
    film, _ = locate(spec)
    boxes = work / f"{film.stem}-boxes.csv"
    if not boxes.exists():
        find_in_film(film, boxes, work / f"{film.stem}-found.png")
    return FilmOptions(boxes=boxes)


if __name__ == "__main__":
    main()
