"""Commands that look at data sets: data list, data check."""

from __future__ import annotations

import click

from lmk.runtime.terminal import progress
from lmk.train.datasets.layouts import LAYOUTS


@click.group("data")
def data_group() -> None:
    """Data sets that can be named."""


@data_group.command("list")
def data_list_command() -> None:
    """List the data sets in $LMK_DATA (else data/ and the user's) and the built-in ones."""
    from lmk.train.datasets.drawn import CATEGORIES
    from lmk.train.datasets.find import BUILTIN, found, layout_of

    for name, root in found().items():
        click.echo(f"{name:24} {layout_of(root).name:8} {root}")
    for name in CATEGORIES:
        click.echo(f"{BUILTIN + name:24} {'builtin':8} drawn, with known points")


@data_group.command("check")
@click.argument("layout", type=click.Choice(list(LAYOUTS)))
@click.argument("folder")
@click.option("--decode/--no-decode", default=True, help="Decode every image.")
def data_check_command(layout: str, folder: str, decode: bool) -> int:
    """Count what a data set of LAYOUT holds and say what is missing or corrupt (exit code 1)."""
    from lmk.train.datasets.check import check, format_check

    with progress(f"checking {folder}") as report:
        found = check(layout, folder, decode, report)
    click.echo(format_check(found))
    return int(bool(found.problems))
