"""The command line: parse, one library call, print. Heavy imports wait inside the commands."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmk import __version__
from lmk.runtime import workspace
from lmk.runtime.errors import UserError
from lmk.runtime.exits import explain
from lmk.runtime.files import check_output, write_bytes
from lmk.runtime.report import print_doctor, print_evaluation, print_info, print_summary, progress
from lmk.runtime.weights import read_header
from lmk.train.config import PRESETS, AdaptConfig, CoreConfig, EvaluateConfig, RunConfig
from lmk.train.datasets.find import LAYOUTS
from lmk.train.options import Command, config_options, make_config

if TYPE_CHECKING:
    from lmk.train.datasets.decoded import CropMode, DecodedSet

FILE_PATH = click.Path(path_type=Path)
CROP = click.Choice(["image", "object", "annotation"])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lmk")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def cli(debug: bool) -> None:
    """Landmarks on any object, without labels: train, adapt, export, detect."""
    logging.basicConfig(level=logging.WARNING, format="lmk: %(message)s", stream=sys.stderr)


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


def _training_set(data: str, layout: str | None, crop: CropMode, config: RunConfig) -> DecodedSet:
    from lmk.train.device import pick_device, pick_dtype

    pick_dtype(config.dtype, pick_device(config.device))  # fails before minutes of decoding
    return _decode(data, layout, config.input_size, crop)


def _decode(spec: str, layout: str | None, input_size: int, crop: CropMode) -> DecodedSet:
    from lmk.train.datasets.decoded import cache_folder, decode
    from lmk.train.datasets.find import open_dataset

    dataset = open_dataset(spec, layout)
    with progress(f"decoding {dataset.name}") as report:
        return decode(dataset, input_size, crop, cache_folder(), report)


@cli.command("train-core")
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

    config = make_config(CoreConfig, o)
    if not config.resume:
        check_output(config.output, force)
    if data is None:
        data = first_pose_set()
        click.echo(f"data: {data}", err=True)
    click.echo(train_core(config, _training_set(data, layout, crop, config)))


@cli.command("adapt")
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

    scratch = o["method"] == "scratch"
    if o["core"] is None and not (scratch and o["perceptual"] not in (None, "core")):
        o["core"] = _pick(None, "core")
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
    click.echo(adapt(config, _training_set(data, layout, crop, config)))


@cli.command("evaluate")
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
    from lmk.train.evaluate import evaluate

    config = make_config(EvaluateConfig, o)
    if o["output"]:
        check_output(o["output"], o["force"])
    pack = _pick(pack, "pack")
    model, header = load_pack(pack, core or workspace.core_of(pack))
    decoded = _decode(data, layout, model.config.input_size, crop)
    _warn_unfinished(pack, header)
    report = evaluate(model, decoded, config, header["config"]["seed"])
    report = {"pack": pack.name, "pack_sha256": header["sha256"], **report}
    if o["output"]:
        write_bytes(o["output"], json.dumps(report, indent=1).encode())
    print_evaluation(report)


@cli.command("export")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option("--output", type=FILE_PATH, help="The ONNX file; default: beside the pack.")
@click.option("--data", help="Images to verify on; default: synthetic ones.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
def export_command(
    pack: Path | None, core: Path | None, output: Path | None, data: str | None, force: bool
) -> None:
    """Make one ONNX file of a pack and its core, verified."""
    from lmk.export.pack import export_pack

    pack = _pick(pack, "pack")
    _warn_unfinished(pack, read_header(pack))
    core = core or workspace.core_of(pack)
    output = output or pack.with_suffix(".onnx")
    crops = None
    if data:
        size = read_header(pack)["network"]["input_size"]
        crops = _decode(data, None, size, "image").central_crops(32, size)
    contract = export_pack(pack, core, output, crops, force)
    click.echo(f"verified: eager = ONNX Runtime within {contract.drift['max_px']:.1e} px", err=True)
    click.echo(output)


@cli.command("detect")
@click.argument("source")
@click.option("--model", type=FILE_PATH, help="An ONNX file; default: the newest in runs/.")
@click.option("--roi", default="full", show_default=True, help="full, center, x,y,w,h or a CSV.")
@click.option(
    "--output", type=FILE_PATH, help="Folder of the results; default: runs/NAME-landmarks."
)
@click.option("--overlay/--no-overlay", default=True, help="Draw the landmarks too.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=int, help="CPU threads of ONNX Runtime; default: all cores.")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--force", is_flag=True, help="Overwrite earlier results.")
def detect_command(
    source: str,
    model: Path | None,
    roi: str,
    output: Path | None,
    overlay: bool,
    device: str,
    threads: int | None,
    batch: int,
    force: bool,
) -> None:
    """Find landmarks in an image, a folder or a video."""
    from lmk.runtime.boxes import parse_roi
    from lmk.runtime.landmarker import load
    from lmk.runtime.pipeline import detect
    from lmk.runtime.results import make_sinks
    from lmk.runtime.sources import open_source

    region = parse_roi(roi)
    with open_source(source) as frames, load(_pick(model, "onnx"), device, threads) as landmarker:
        folder = output or workspace.RUNS / (Path(source).resolve().stem + "-landmarks")
        sinks, files = make_sinks(frames, folder, landmarker.names, overlay, force)
        with progress(f"detecting in {source}", frames.num_frames) as report:
            summary = detect(
                frames, landmarker, region, sinks, batch, lambda done: report(done, None)
            )
    print_summary(summary)
    for file in files:
        click.echo(file)


@cli.command("info")
@click.argument("file", type=FILE_PATH)
@click.option("--json", "as_json", is_flag=True, help="Everything, machine-readable.")
def info_command(file: Path, as_json: bool) -> None:
    """Say what a core, pack or exported model holds."""
    print_info(file, as_json)


@cli.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor_command(as_json: bool) -> None:
    """Say what this machine can run and what is missing."""
    print_doctor(as_json)


@cli.command("demo")
@click.option("--output", type=FILE_PATH, default=Path("runs/demo"), show_default=True)
@click.option("--minutes", type=float, default=4.0, show_default=True, help="For all training.")
@click.option("--force", is_flag=True, help="Overwrite an earlier demo.")
def demo_command(output: Path, minutes: float, force: bool) -> None:
    """Run the whole chain on built-in, drawn categories."""
    from lmk.benchmarks.demo import demo

    demo(output, minutes, force)


@cli.group("data")
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


def _warn_unfinished(pack: Path, header: dict[str, Any]) -> None:
    if not header.get("finished", True):
        step = header["step"]
        click.echo(f"warning: {pack} was stopped at step {step}; `--resume` goes on", err=True)


def _pick(path: Path | None, kind: str) -> Path:
    if path is None:
        path = workspace.newest(kind)
        click.echo(f"{kind}: {path}", err=True)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Run a command; user errors are one line on standard error and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(arguments, prog_name="lmk", standalone_mode=False) or 0
    except BrokenPipeError:  # `lmk … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        line, code = explain(error)
        if line is None or "--debug" in arguments:
            traceback.print_exc()
        click.echo(f"lmk: {line or f'internal error, please report it: {error!r}'}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
