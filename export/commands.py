"""The command that ships: export."""

from __future__ import annotations

from pathlib import Path

import click

from lmk.runtime import workspace
from lmk.runtime.commands import FILE_PATH
from lmk.runtime.weights import read_header


@click.command("export")
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

    pack = workspace.pick(pack, "pack")
    workspace.warn_unfinished(pack, read_header(pack))
    core = core or workspace.core_of(pack)
    output = output or pack.with_suffix(".onnx")
    crops = None
    if data:
        from lmk.train.datasets.load import load_decoded

        size = read_header(pack)["network"]["input_size"]
        crops = load_decoded(data, None, size, "image").central_crops(32, size)
    contract = export_pack(pack, core, output, crops, force)
    click.echo(f"verified: eager = ONNX Runtime within {contract.drift['max_px']:.1e} px", err=True)
    click.echo(output)
