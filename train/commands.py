"""Commands that train and judge: train-core, adapt, evaluate, data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmk.runtime import workspace
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output, write_bytes
from lmk.runtime.report import print_evaluation
from lmk.train.config import PRESETS, AdaptConfig, CoreConfig, EvaluateConfig
from lmk.train.datasets.find import LAYOUTS
from lmk.train.options import Command, config_options, make_config

if TYPE_CHECKING:
    from lmk.train.datasets.decoded import CropMode

FILE_PATH = click.Path(path_type=Path)
CROP = click.Choice(["image", "object", "annotation"])


def _data_options(crop: str) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        command = click.option(
            "--crop",
            type=CROP,
            default=crop,
            show_default=True,
            help="What the crops are fitted to.",
        )(command)
        return click.option("--layout", type=click.Choice(list(LAYOUTS)), help="Of the data.")(
            command
        )

    return add


@click.command("train-core")
@click.option("--data", help="A folder, a name (see `lmk data list`) or builtin:puppet.")
@_data_options("annotation")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@config_options(CoreConfig)
def train_core_command(
    data: str | None, layout: str, crop: CropMode, force: bool, **o: Any
) -> None:
    """Train a core on labelled images of one category."""
    from lmk.train.core import train_core
    from lmk.train.datasets.find import first_pose_set
    from lmk.train.datasets.load import training_set

    config = make_config(CoreConfig, o)
    if not config.resume:
        check_output(config.output, force)
    if data is None:
        data = first_pose_set()
        click.echo(f"data: {data}", err=True)
    click.echo(train_core(config, training_set(data, layout, crop, config)))


@click.command("adapt")
@click.option("--data", required=True, help="A folder, a name, or builtin:butterfly.")
@_data_options("image")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@config_options(AdaptConfig)
def adapt_command(
    data: str, layout: str, crop: CropMode, preset: str, force: bool, **o: Any
) -> None:
    """Discover landmarks on a new category from unlabelled images."""
    from lmk.train.adapt import adapt
    from lmk.train.checkpoint import load_core
    from lmk.train.datasets.find import category_name
    from lmk.train.datasets.load import training_set

    scratch = o["method"] == "scratch"
    if o["core"] is None and not (scratch and o["perceptual"] not in (None, "core")):
        o["core"] = workspace.pick(None, "core")
    for name in ("width", "input_size"):
        if o[name] is not None and o["core"] is not None:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag}: got {o[name]}, but the core's {name} is taken; leave it out")
    output = workspace.RUNS / f"{category_name(data)}.safetensors"
    config = make_config(AdaptConfig, o, **{"output": output, **PRESETS[preset]})
    if not config.resume:
        check_output(config.output, force)
    if Path(data).is_dir() and Path(data).resolve() in config.output.resolve().parents:
        raise UserError(f"{config.output}: lies inside the data {data}; give another --output")
    size = load_core(config.core)[0].config.input_size if config.core else config.input_size
    config = replace(config, input_size=size)
    click.echo(adapt(config, training_set(data, layout, crop, config)))


@click.command("evaluate")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option("--data", required=True, help="A folder or a name; annotated points are used if any.")
@_data_options("image")
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option("--output", type=FILE_PATH, help="JSON to write besides the table.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@config_options(EvaluateConfig)
def evaluate_command(
    pack: Path | None, data: str, layout: str, crop: CropMode, core: Path | None, **o: Any
) -> None:
    """Measure a pack on images that were held out."""
    from lmk.train.category import load_pack
    from lmk.train.datasets.load import load_decoded
    from lmk.train.evaluate import evaluate

    config = make_config(EvaluateConfig, o)
    if o["output"]:
        check_output(o["output"], o["force"])
    pack = workspace.pick(pack, "pack")
    model, header = load_pack(pack, core or workspace.core_of(pack))
    decoded = load_decoded(data, layout, model.config.input_size, crop)
    workspace.warn_unfinished(pack, header)
    report = evaluate(model, decoded, config, header["config"]["seed"])
    report = {"pack": pack.name, "pack_sha256": header["sha256"], **report}
    if o["output"]:
        write_bytes(o["output"], json.dumps(report, indent=1).encode())
    print_evaluation(report)


@click.group("data")
def data_group() -> None:
    """Data sets that can be named."""


@data_group.command("list")
def data_list_command() -> None:
    """List the data sets in $LMK_DATA (else data/ and the user's) and the built-in ones."""
    from lmk.train.datasets.builtin import CATEGORIES
    from lmk.train.datasets.find import BUILTIN, found, layout_of

    for name, root in found().items():
        click.echo(f"{name:24} {layout_of(root).name:8} {root}")
    for name in CATEGORIES:
        click.echo(f"{BUILTIN + name:24} {'builtin':8} drawn, with known points")
