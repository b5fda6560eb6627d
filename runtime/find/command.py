"""`lmk find`: films -> boxes of what moves in them, and pictures to judge them by."""

from __future__ import annotations

from pathlib import Path

import click

from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output, printable
from lmk.runtime.model import workspace
from lmk.runtime.owner import Owned
from lmk.runtime.terminal import FILE_PATH, progress


@click.command("find")
@click.argument("films", nargs=-1, required=True)
@click.option(
    "--find",
    "way",
    type=click.Choice(["auto", "motion", "box", "detector"]),
    default="auto",
    show_default=True,
    help="How: motion before a still camera, a box that is followed, or a detector; auto: the "
    "detector if there is one, else motion, if sure.",
)
@click.option("--start", help="With --find box: its place in the first frame, x,y,w,h or a CSV.")
@click.option("--detector", type=FILE_PATH, help="An ONNX box detector (YOLO-style output).")
@click.option("--detector-class", help="Name or number of the class that is wanted.")
@click.option("--detector-score", type=click.FloatRange(0, 1), default=0.25, show_default=True)
@click.option("--objects", type=click.IntRange(min=1), help="How many; default: as it looks.")
@click.option("--output", type=FILE_PATH, help="Folder of results; default: runs.")
@click.option("--force", is_flag=True, help="Overwrite earlier results.")
def find_command(
    films: tuple[str, ...],
    way: str,
    start: str | None,
    objects: int | None,
    detector: Path | None,
    detector_class: str | None,
    detector_score: float,
    output: Path | None,
    force: bool,
) -> None:
    """Find what moves in films, without a model: boxes for --roi and a picture to judge by."""
    from lmk.runtime.find import find_in_film
    from lmk.runtime.regions import BoxDetector
    from lmk.runtime.sources import expand, find_medium

    if (way == "detector") > bool(detector) or way in ("motion", "box") and detector:
        raise UserError(
            f"find: got {way} and {detector or 'no --detector'}, expected them together"
        )
    found_by = None
    if detector:
        classes = [name for name in (detector_class or "").split(",") if name]
        found_by = BoxDetector(detector, classes, detector_score, max_objects=objects)
    specs, folder = expand(films), output or workspace.RUNS
    names = [Path(s).resolve().stem if Path(s).exists() else find_medium(s).name for s in specs]
    if len(set(names)) < len(names):  # which other commands look for their boxes by
        raise UserError("find: got films of one name, expected different ones; rename some")
    for spec, name in zip(specs, names, strict=True):
        boxes, picture = folder / f"{name}-boxes.csv", folder / f"{name}-found.png"
        with Owned(boxes), progress(f"following in {printable(name)}") as report:
            check_output(boxes, force)
            boxed = find_in_film(
                spec, boxes, picture, way, start, objects, click.echo, report, found_by
            )
        click.echo("\n".join([*boxed.lines, str(boxes), str(picture)]))
