"""Commands that look at data sets: data list, data check."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lmk.runtime.model import workspace
from lmk.runtime.terminal import FILE_PATH, progress
from lmk.train.datasets.layouts import LAYOUTS, FilmOptions


def film_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--frames and --boxes, which the command gets as `films`."""

    @click.option(
        "--frames",
        type=click.IntRange(min=1),
        default=FilmOptions.frames,
        show_default=True,
        help="Of films: choose at most so many.",
    )
    @click.option(
        "--boxes",
        type=FILE_PATH,
        help="Of films: where the objects are, a CSV, or a folder of FILM-boxes.csv as `lmk find` "
        "leaves them; default: runs.",
    )
    @functools.wraps(command)
    def with_films(frames: int, boxes: Path | None, **others: Any) -> Any:
        return command(films=FilmOptions(frames, boxes), **others)

    return with_films


@click.group("data")
def data_command() -> None:
    """Data sets that can be named."""


@data_command.command("list")
def data_list_command() -> None:
    """List the data sets in $LMK_DATA (else data/ and the user's) and the built-in ones."""
    from lmk.train.datasets.drawn import CATEGORIES
    from lmk.train.datasets.find import BUILTIN, found, layout_of

    for name, root in found().items():
        click.echo(f"{name:24} {layout_of(root).name:8} {root}")
    for name in CATEGORIES:
        click.echo(f"{BUILTIN + name:24} {'builtin':8} drawn, with known points")


@data_command.command("check")
@click.argument("layout", type=click.Choice(list(LAYOUTS)))
@click.argument("folder")
@click.option("--decode/--no-decode", default=True, help="Decode every image.")
@film_options
def data_check_command(layout: str, folder: str, decode: bool, films: FilmOptions) -> int:
    """Count what a data set of LAYOUT holds and say what is missing or corrupt (exit code 1).

    Some of the crops that would be learnt from come onto a sheet, runs/NAME-crops.png.
    """
    from lmk.train.datasets.check import check, format_check, write_sheet
    from lmk.train.datasets.find import category_name, open_dataset

    dataset = open_dataset(folder, layout, films)
    with progress(f"checking {folder}") as report:
        found = check(layout, dataset, decode, report)
    click.echo(format_check(found))
    if found.crops:
        sheet = workspace.RUNS / f"{category_name(folder)}-crops.png"
        write_sheet(found.crops, sheet)
        click.echo(sheet)
    return int(bool(found.problems))
