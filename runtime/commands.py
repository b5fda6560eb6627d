"""Commands that need no PyTorch but are no detection: info, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from lmk.runtime import workspace
from lmk.runtime.report import print_doctor, print_info

FILE_PATH = click.Path(path_type=Path)


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
