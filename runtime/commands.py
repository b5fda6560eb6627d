"""Commands that need no PyTorch: detect, info, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from lmk.runtime import workspace
from lmk.runtime.errors import UserError
from lmk.runtime.report import print_doctor, print_info, print_summary, progress

FILE_PATH = click.Path(path_type=Path)


@click.command("detect")
@click.argument("source")
@click.option(
    "--model", type=FILE_PATH, help="A category or a model file; default: the newest in runs/."
)
@click.option(
    "--engine",
    type=FILE_PATH,
    help="An engine built with --refit for another category of the same core: run --model with it.",
)
@click.option("--roi", default="full", show_default=True, help="full, center, x,y,w,h or a CSV.")
@click.option(
    "--output", type=FILE_PATH, help="Folder of the results; default: runs/NAME-landmarks."
)
@click.option("--overlay/--no-overlay", default=True, help="Draw the landmarks too.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Default: cpu, for an engine cuda."
)
@click.option("--threads", type=int, help="CPU threads of ONNX Runtime; default: all cores.")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--force", is_flag=True, help="Overwrite earlier results.")
def detect_command(
    source: str,
    model: Path | None,
    engine: Path | None,
    roi: str,
    output: Path | None,
    overlay: bool,
    device: str | None,
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

    if engine and model is None:
        raise UserError(f"{engine}: got no category to find with it; name one by --model")
    region = parse_roi(roi)
    with (
        open_source(source) as frames,
        load(workspace.pick(model, "onnx"), device, threads, engine) as landmarker,
    ):
        folder = output or workspace.RUNS / (Path(source).resolve().stem + "-landmarks")
        sinks, files = make_sinks(frames, folder, landmarker.names, overlay, force)
        with progress(f"detecting in {source}", frames.num_frames) as report:
            summary = detect(
                frames, landmarker, region, sinks, batch, lambda done: report(done, None)
            )
    print_summary(summary)
    for file in files:
        click.echo(file)


@click.command("info")
@click.argument("file", type=FILE_PATH)
@click.option("--json", "as_json", is_flag=True, help="Everything, machine-readable.")
def info_command(file: Path, as_json: bool) -> None:
    """Say what a core, pack, exported model or engine holds; a category stands for its pack."""
    print_info(workspace.pick(file, "pack"), as_json)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor_command(as_json: bool) -> None:
    """Say what this machine can run and what is missing."""
    print_doctor(as_json)
