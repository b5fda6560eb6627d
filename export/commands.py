"""The commands that ship: export, name, prune, discover."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lmk.export.engine import (
    LIBRARIES,
    PERCENT,
    Cached,
    engine_options,
    export_engine,
    find_place,
    make_options,
    shares,
)
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.model import (
    PRECISIONS,
    Precision,
    check_kind,
    is_composed,
    read_header,
    read_model,
    workspace,
)
from lmk.runtime.owner import Owned
from lmk.runtime.sources import expand
from lmk.runtime.terminal import FILE_PATH, CommaList, console, progress
from lmk.train.config import AdaptConfig
from lmk.train.datasets import FilmOptions
from lmk.train.options import Duration, make_config

_MB = 1e6

_CROPS = 128  # to verify on; int8 and fp8 calibrate on every other one


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
    options = make_options(engine, built_for)
    if (engine == "web") != (library is not None):
        raise UserError(
            f"--library: got {library or 'none'} for --engine {engine}, expected onnxruntime-web "
            "for web, and none else; `npm pack onnxruntime-web` gets it"
        )
    if library is not None:
        _write_page(pack, core, precision or "fp32", data, library, output, force)
        return
    repository = output if engine == "triton" else None
    if engine == "triton" and repository is None:  # it may stand alone in the place of PACK
        if pack is None or pack.suffix in (".safetensors", ".onnx", ".engine"):
            raise UserError(
                "engine triton: got no folder, expected that of the model repository; give --output"
            )
        pack, repository = None, pack
    pack = workspace.pick(pack, "pack")
    if precision and pack.suffix in (".onnx", ".engine"):
        raise UserError(
            f"precision: got {precision} for {pack}, which has its own; leave --precision out, or "
            "name the pack"
        )
    typed = f"-{precision}" if precision not in (None, "fp32") else ""  # beside the one in fp32
    output = output or workspace.made_of(pack, typed + (".engine" if options else ".onnx"))
    suffix = ".engine" if options else ".onnx"
    if not repository and output.suffix != suffix:  # `lmk detect` goes by it
        raise UserError(f"--output: got {output}, expected a name ending in {suffix}; rename it")
    precision = precision or "fp32"
    with Owned(repository or output):
        if repository:
            onnx = workspace.made_of(pack, f"{typed}.onnx")
            output = _serve(pack, core, onnx, precision, data, repository, force)
        elif options is None:
            _export(pack, core, output, precision, data, force or is_composed(output))
        else:
            check_output(output, force)  # before minutes of work
            onnx = pack if pack.suffix == ".onnx" else output.with_suffix(".onnx")
            place = None
            if onnx != pack and (force or data or not _is_exported(onnx, pack, precision)):
                place = find_place(options, precision)  # told before the export's seconds
                with Owned(onnx):
                    _export(pack, core, onnx, precision, data, force)
            with progress(f"building {output}", PERCENT) as report:
                found = export_engine(
                    onnx,
                    output,
                    options,
                    force,
                    lambda percent: report(percent, None),
                    lambda: console().print("another process builds this engine; waiting for it"),
                    place,
                )
            print_engine(found)
    click.echo(output)


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
    normaliser: str | None,
    export: bool,
    force: bool,
) -> None:
    """Let a pack find points of your own, annotated in 5 to 50 images.

    The result is a pack, and an ONNX file, that find the named points instead of the landmarks. It
    is refused when the landmarks do not tell where the points are, and single points are left out
    of which they do not. Boxes of the annotation (columns box_x, box_y, box_w, box_h of a CSV) say
    where the object is, as --roi does in detection; without them, of a model that finds its objects
    in films, those of `lmk find` in runs/, else the points.
    """
    from lmk.export.graph import export_pack
    from lmk.train.judge import name_pack, print_naming

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
    report, seen = name_pack(pack, core, annotations, output, ridge, force, layout, normaliser)
    print_naming(report)
    click.echo(output)
    if export:
        with Owned(onnx):
            contract = export_pack(output, core, onnx, seen.crops, force=True)
        click.echo(f"verified: {_outcome(contract.drift)}", err=True)
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
    click.echo(f"verified: {_outcome(contract.drift)}", err=True)
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
    type=click.Choice(["auto", "motion", "box"]),
    default="auto",
    show_default=True,
    help="How objects are found, as of `lmk find`.",
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
@click.option("--core", type=FILE_PATH, help="Default: the newest in runs/, else the one shipped.")
@click.option(
    "--output", type=FILE_PATH, help="The pack; all else is beside it.  [default: runs/FILM]"
)
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option("--threads", type=int, help="CPU threads; default: all cores.")
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
    from lmk.export.discovery import Search, discover

    paths = [Path(film) for film in expand(films)]
    o["core"] = workspace.pick(o["core"], "core")
    first = workspace.RUNS / f"{paths[0].stem}.safetensors"
    config = make_config(AdaptConfig, o, output=first)
    header = read_header(config.core)
    check_kind(config.core, header, "core")
    config = replace(config, input_size=header["network"]["input_size"])
    made = discover(paths, config, Search(find, start, objects, frames), force)
    click.echo("\n".join(map(str, made.pictures)))
    screen = console()
    screen.print("look at these; then, for other films of such an object:")
    screen.print(f"  lmk detect OTHER.mp4 --model {made.onnx}")
    screen.print("for points of your own, from a few pictures:")
    screen.print(f"  lmk name {made.pack} --annotations points.csv")


def _export(
    pack: Path,
    core: Path | None,
    output: Path,
    precision: Precision,
    data: str | None,
    force: bool,
) -> None:
    from lmk.export.graph import export_pack

    workspace.warn_unfinished(pack, read_header(pack))
    core = core or workspace.core_of(pack)
    crops = None
    if data:
        from lmk.train.datasets import load_decoded

        size = read_header(pack)["network"]["input_size"]
        crops = load_decoded(data, None, size, "image").central_crops(_CROPS, size)
    contract = export_pack(pack, core, output, crops, force, precision)
    click.echo(f"verified: {_outcome(contract.drift)}", err=True)


def _write_page(
    pack: Path | None,
    core: Path | None,
    precision: Precision,
    data: str | None,
    library: Path,
    folder: Path | None,
    force: bool,
) -> None:
    """Write the page of a pack, or of an ONNX file of one, exported now if it is not yet."""
    from lmk.export.web import write_page

    pack = workspace.pick(pack, "pack")
    onnx = pack
    if pack.suffix != ".onnx":
        onnx = workspace.made_of(pack, ".onnx" if precision == "fp32" else f"-{precision}.onnx")
        with Owned(onnx):
            if not _is_exported(onnx, pack, precision):
                _export(pack, core, onnx, precision, data, force or is_composed(onnx))
    folder = folder or onnx.with_name(f"{onnx.stem}-web")
    with Owned(folder):
        page = write_page(onnx, library, folder, force)
    console().print(f"serve it: python -m http.server --directory {folder}")
    click.echo(page)


def _serve(
    pack: Path,
    core: Path | None,
    onnx: Path,
    precision: Precision,
    data: str | None,
    repository: Path,
    force: bool,
) -> Path:
    """Put the ONNX file of `pack` into the repository: `onnx`, or exported now if that is older."""
    from lmk.export.triton import write_repository

    if pack.suffix in (".onnx", ".engine"):
        return write_repository(pack, repository, force)
    if not data and _is_exported(onnx, pack, precision):
        return write_repository(onnx, repository, force)
    with tempfile.TemporaryDirectory() as folder:  # --force is about the repository
        _export(pack, core, Path(folder) / onnx.name, precision, data, force=False)
        return write_repository(Path(folder) / onnx.name, repository, force)


def _outcome(drift: Mapping[str, Any]) -> str:
    """What the verification found, in words."""
    crops = f"{drift['crops']} {'synthetic crops' if drift['synthetic'] else 'images'}"
    if drift["precision"] == "fp32":
        return f"eager = ONNX Runtime within {drift['max_px']:.1e} px on {crops}"
    found, limits = drift["pairs"]["eager-emulated"], drift["limits_px"]
    kept = f"; {len(drift['kept'])} convolutions stay in fp16" if drift.get("kept") else ""
    return (
        f"{drift['precision']} is {found['mean_px']:.2g} px from eager on average, "
        f"{found['p99_px']:.2g} px at the 99th percentile (limits {limits['mean']}, "
        f"{limits['p99']}) on {crops}{kept}"
    )


def _is_exported(onnx: Path, pack: Path, precision: Precision) -> bool:
    """Whether `onnx` is there, of `pack` as it is now and of `precision`; says so if it is."""
    if not onnx.exists():
        return False
    contract = read_model(onnx)[1]
    if (contract.pack_sha256, contract.precision) != (read_header(pack).get("sha256"), precision):
        return False
    console().print(f"onnx: {onnx}, exported before from this pack")
    return True


def print_engine(found: Cached) -> None:
    """Where the engine comes from and what it computes in, on standard error."""
    screen, info, recipe = console(), found.info, found.info.recipe
    origin = f"built in {info.build_seconds:.1f} s ({found.reason})" if found.reason else "cached"
    size = f"{info.plan_bytes / _MB:.1f} MB"
    screen.print(f"engine: {recipe.precision}, {info.titled_library}, {size}, {origin}")
    screen.print(f"layers: {shares(info.layers)}; convolutions: {shares(info.convolutions)}")
    if info.kernels:
        screen.print(f"kernels: {shares(info.kernels)}")
    screen.print(f"batches: {', '.join(map(str, recipe.batches))}; for {recipe.place}")
    refit = "takes the weights of other packs" if recipe.refittable else "its weights are fixed"
    screen.print(f"refit: {refit}")
