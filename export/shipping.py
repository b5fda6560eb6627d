"""A pack -> the file that ships: ONNX, an engine, a repository or a page, made or found there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lmk.export.engine import PERCENT, Cached, export_engine, find_place, make_options, shares
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.model import (
    Precision,
    is_composed,
    read_header,
    read_model,
    workspace,
)
from lmk.runtime.owner import Owned
from lmk.runtime.terminal import console, progress

_MB = 1e6

_CROPS = 128  # to verify on; int8 and fp8 calibrate on every other one


def ship(
    pack: Path | None,
    core: Path | None,
    engine: str,
    output: Path | None,
    precision: Precision | None,
    data: str | None,
    library: Path | None,
    force: bool,
    **built_for: Any,
) -> Path:
    """Make what `lmk export` is asked for, with its options; the file, or the repository's model.

    built_for: the fields of `EngineOptions` that are given. Tells on standard error what was
    verified. Raises UserError.
    """
    options = make_options(engine, built_for)
    if (engine == "web") != (library is not None):
        raise UserError(
            f"--library: got {library or 'none'} for --engine {engine}, expected onnxruntime-web "
            "for web, and none else; `npm pack onnxruntime-web` gets it"
        )
    if library is not None:
        return _write_page(pack, core, precision or "fp32", data, library, output, force)
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
    return output


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
    click.echo(f"verified: {outcome(contract.drift)}", err=True)


def _write_page(
    pack: Path | None,
    core: Path | None,
    precision: Precision,
    data: str | None,
    library: Path,
    folder: Path | None,
    force: bool,
) -> Path:
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
    return page


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


def outcome(drift: Mapping[str, Any]) -> str:
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
