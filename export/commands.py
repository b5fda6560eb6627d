"""The commands that ship: export, name, prune, discover; `lmk.export` and `lmk.discover`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmk.export.engine import LIBRARIES, engine_options
from lmk.export.shipping import outcome, ship
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.model import (
    PRECISIONS,
    Precision,
    is_composed,
    read_header,
    workspace,
)
from lmk.runtime.owner import Owned
from lmk.runtime.sources import expand
from lmk.runtime.terminal import FILE_PATH, CommaList, console
from lmk.train.config import AdaptConfig
from lmk.train.datasets import FilmOptions
from lmk.train.options import Duration, make_config, read_options, sized_as_core

if TYPE_CHECKING:  # it brings PyTorch
    from lmk.export.discovery import Discovered


@click.command("export")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option(
    "--engine",
    type=click.Choice(["onnx", *LIBRARIES, "triton", "web"]),
    default="onnx",
    show_default=True,
    help="trt, rtx: also an engine, of TensorRT for this GPU, of TensorRT for RTX for others too. "
    "triton: a model repository of Triton Inference Server. web: a page that runs it in a browser.",
)
@click.option(
    "--output",
    type=FILE_PATH,
    help="The ONNX or engine file, default: beside the pack; with triton and web a folder.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What the network computes in. On a CPU fp32 is the fastest in ONNX Runtime, int8 in "
    "OpenVINO; int8 and fp8 need --data.  [default: fp32]",
)
@click.option("--data", help="Images to calibrate and verify on; default: synthetic ones.")
@click.option(
    "--library",
    type=FILE_PATH,
    help="With web: onnxruntime-web, the folder of the npm package or the .tgz of `npm pack`.",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@engine_options
def export_command(
    pack: Path | None,
    core: Path | None,
    engine: str,
    output: Path | None,
    precision: Precision | None,
    data: str | None,
    library: Path | None,
    force: bool,
    **built_for: Any,
) -> None:
    """Make one ONNX file of a pack and its core, verified; with --engine an engine of that.

    With --engine, PACK may also be an ONNX file that was exported before. For --engine triton it
    may be an engine too; a folder in its place is the --output.
    """
    click.echo(ship(pack, core, engine, output, precision, data, library, force, **built_for))


def export(
    pack: Path | str | None = None,
    *,
    core: Path | str | None = None,
    engine: str = "onnx",
    output: Path | str | None = None,
    precision: Precision | None = None,
    data: Path | str | None = None,
    library: Path | str | None = None,
    force: bool = False,
    batches: Sequence[int] | None = None,
    targets: Sequence[str] | None = None,
    level: int | None = None,
    workspace_mib: int | None = None,
    refittable: bool | None = None,
) -> Path:
    """Make one ONNX file of a pack, verified, or what else `lmk export` makes; the file.

    pack: a file or the name of a category; without one the newest in runs/. The options are those
    of the command, workspace_mib and refittable its --workspace and --refit. What was verified goes
    to standard error. Raises UserError.
    """
    given = dict(locals())
    path = given.pop("pack")
    return ship(**read_options(export_command, given, [] if path is None else [str(path)]))


def _ridge(text: str) -> float | None:
    """A strength over 0, or auto: None; a usage error for anything else."""
    try:
        strength = None if text == "auto" else float(text)
    except ValueError:
        strength = math.nan
    if strength is not None and not 0 < strength < math.inf:
        raise click.BadParameter(f"got '{text}', expected auto or a number over 0, such as 0.01")
    return strength


@click.command("name")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option(
    "--annotations",
    type=FILE_PATH,
    required=True,
    help="A folder or file of annotations of any layout: CSV, DeepLabCut, SLEAP, COCO, YOLO-pose, "
    "Label Studio, CVAT.",
)
@click.option("--layout", help="Of the annotations; recognised by their files unless given.")
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option("--output", type=FILE_PATH, help="The pack; default: runs/NAME-named.safetensors.")
@click.option(
    "--ridge",
    type=_ridge,
    metavar="AUTO|X",
    default="auto",
    show_default=True,
    help="Draws the points to the middle of the landmarks; auto: the best for images left out.",
)
@click.option(
    "--learn",
    type=Duration(),
    metavar="TIME",
    help="Learn, for so long (5m), the points that lie near no landmark, such as limbs.",
)
@click.option(
    "--normaliser", help="Divide errors by the box, or by a distance, A,B, of two points."
)
@click.option("--export/--no-export", default=True, help="Make the ONNX file too.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
def name_command(
    pack: Path | None,
    annotations: Path,
    layout: str | None,
    core: Path | None,
    output: Path | None,
    ridge: float | None,
    learn: float | None,
    normaliser: str | None,
    export: bool,
    force: bool,
) -> None:
    """Let a pack find points of your own, annotated in 5 to 50 images.

    The result is a pack, and an ONNX file, that find the named points instead of the landmarks. It
    is refused when the landmarks do not tell where the points are, and single points are left out
    of which they do not; --learn teaches the network those. Boxes of the annotation (columns box_x,
    box_y, box_w, box_h of a CSV) say where the object is, as --roi does in detection; without them,
    of a model that finds its objects in films, those of `lmk find` in runs/, else the points.
    """
    from lmk.export.graph import export_pack
    from lmk.train.judge import Learning, name_pack, print_naming

    pack = workspace.pick(pack, "pack")
    workspace.warn_unfinished(pack, read_header(pack))
    output = output or workspace.made_of(pack, "-named.safetensors")
    if output.suffix != ".safetensors":
        raise UserError(
            f"--output: got {output}, expected a name ending in .safetensors; rename it"
        )
    onnx, core = output.with_suffix(".onnx"), core or workspace.core_of(pack)
    if export:
        check_output(onnx, force or is_composed(onnx))  # before the work
    learning = None if learn is None else Learning(minutes=learn)
    report, seen = name_pack(
        pack, core, annotations, output, ridge, force, layout, normaliser, learning
    )
    print_naming(report)
    click.echo(output)
    if export:
        with Owned(onnx):
            contract = export_pack(output, core, onnx, seen.crops, force=True)
        click.echo(f"verified: {outcome(contract.drift)}", err=True)
        click.echo(onnx)


@click.command("prune")
@click.argument("pack", type=FILE_PATH, required=False)
@click.option("--drop", multiple=True, help="A landmark to leave out; may be repeated.")
@click.option(
    "--merge",
    type=CommaList(),
    multiple=True,
    metavar="NAME,NAME",
    help="Landmarks that are one; it is called as the first. May be repeated.",
)
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not in runs/.")
@click.option("--output", type=FILE_PATH, help="The pack; default: runs/NAME-pruned.safetensors.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
def prune_command(
    pack: Path | None,
    drop: tuple[str, ...],
    merge: tuple[tuple[str, ...], ...],
    core: Path | None,
    output: Path | None,
    force: bool,
) -> None:
    """Make a pack, and its ONNX file, without the landmarks that `lmk report` gives little for."""
    from lmk.export.graph import export_pack
    from lmk.train.network import prune_pack

    pack = workspace.pick(pack, "pack")
    if not drop and not merge:
        raise UserError("prune: got no landmark, expected some to --drop or --merge; name them")
    output = output or workspace.made_of(pack, "-pruned.safetensors")
    if output.suffix != ".safetensors":
        raise UserError(
            f"--output: got {output}, expected a name ending in .safetensors; rename it"
        )
    onnx, core = output.with_suffix(".onnx"), core or workspace.core_of(pack)
    with Owned(output), Owned(onnx):
        check_output(output, force)
        check_output(onnx, force or is_composed(onnx))
        kept = prune_pack(pack, core, output, drop, merge)
        contract = export_pack(output, core, onnx, force=True)
    click.echo(f"{len(kept)} landmarks stay: {', '.join(kept)}", err=True)
    click.echo(f"verified: {outcome(contract.drift)}", err=True)
    click.echo(f"{output}\n{onnx}")


@click.command("discover")
@click.argument("films", nargs=-1, required=True)
@click.option(
    "--time-budget",
    "minutes",
    type=Duration(),
    help="For all of it; adaptation gets what finding and detection leave.  [default: without a "
    "GPU 20m]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of adaptation, in the place of a time.")
@click.option(
    "--find",
    type=click.Choice(["auto", "motion", "box", "given"]),
    default="auto",
    show_default=True,
    help="How objects are found, as of `lmk find`; given: FILM-boxes.csv, beside the output, is "
    "taken as it is, corrected by hand say.",
)
@click.option("--start", help="With --find box: its place in the first frame, x,y,w,h or a CSV.")
@click.option("--objects", type=click.IntRange(min=1), help="How many; default: as it looks.")
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=FilmOptions.frames,
    show_default=True,
    help="Learn from at most so many.",
)
@click.option("--landmarks", type=int, help="How many to discover.  [default: 10]")
@click.option(
    "--core",
    type=FILE_PATH,
    help="auto: the one that suits what is seen, tried on each.  [default: the newest in runs/, "
    "else core, which ships]",
)
@click.option(
    "--output", type=FILE_PATH, help="The pack; all else is beside it.  [default: runs/FILM]"
)
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option("--threads", type=int, help="CPU threads; default: the cores that are free.")
@click.option("--resume", is_flag=True, help="Go on; what is finished is not done again.")
@click.option("--force", is_flag=True, help="Overwrite earlier results.")
def discover_command(
    films: tuple[str, ...],
    find: str,
    start: str | None,
    objects: int | None,
    frames: int,
    force: bool,
    **o: Any,
) -> None:
    """From films to landmarks: find what moves, adapt to it, judge, export, and draw it all.

    Ends with the pictures to look at. Several films of one kind of object make one pack.
    """
    made = _discover(films, find, start, objects, frames, force, **o)
    click.echo("\n".join(map(str, made.pictures)))
    screen = console()
    screen.print("look at these; then, for other films of such an object:")
    screen.print(f"  lmk detect OTHER.mp4 --model {made.onnx}")
    screen.print("for points of your own, from a few pictures:")
    screen.print(f"  lmk name {made.pack} --annotations points.csv")


def discover(
    *films: Path | str,
    minutes: float | str | None = None,
    steps: int | None = None,
    find: str = "auto",
    start: str | None = None,
    objects: int | None = None,
    frames: int = FilmOptions.frames,
    landmarks: int | None = None,
    core: Path | str | None = None,
    output: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    resume: bool = False,
    force: bool = False,
) -> Discovered:
    """Learn landmarks of what moves in films, as `lmk discover`; the files that it has written.

    minutes: the command's --time-budget, also as "90s" or "1h". Progress goes to standard error.
    Raises UserError, and KeyboardInterrupt, with everything saved.
    """
    given = dict(locals())
    names = [str(film) for film in given.pop("films")]
    return _discover(**read_options(discover_command, given, names))


def _discover(
    films: Sequence[str],
    find: str,
    start: str | None,
    objects: int | None,
    frames: int,
    force: bool,
    **o: Any,
) -> Discovered:
    from lmk.export.discovery import Search, discover

    paths = [Path(film) for film in expand(films)]
    o["core"] = workspace.pick(o["core"], "core")
    first = workspace.RUNS / f"{paths[0].stem}.safetensors"
    config = sized_as_core(make_config(AdaptConfig, o, output=first))
    return discover(paths, config, Search(find, start, objects, frames), force)
