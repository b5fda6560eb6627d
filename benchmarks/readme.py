"""What was measured, as JSON -> the tables of README, made anew between their marks.

python -m lmk.benchmarks.readme
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.plots import markdown_table
from lmk.benchmarks.runners.markdown import markdown
from lmk.runtime.errors import UserError
from lmk.runtime.files import read_text, write_bytes
from lmk.runtime.terminal import FILE_PATH

_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "benchmarks" / "results"
_MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
_DRAWN_CLIP = "made for the run"  # what is called long.mp4


def packs(zoo: Mapping[str, Any]) -> str:
    """What ships, of zoo.json: a row for each set that a pack was judged on."""
    columns = ["pack", "judged on", "training", "consistency", "points that never move"]
    rows = [row for name, entry in zoo["entries"].items() for row in _judged(name, entry)]
    return markdown_table([*columns, "forward", "mean shape"], rows, left=2)


def _judged(name: str, entry: Mapping[str, Any]) -> Iterator[list[str]]:
    title = f"[{name}](zoo/README.md#{name})"
    if entry.get("teacher"):
        title += ", [a student](docs/training.md#a-student)"
    training = f"{entry['seconds'] / 60:.0f} min"
    for report in entry.get("measures", ()):
        still = f"{report['consistency_still_px']:.2f}"
        cells = [title, report["data"], training, f"{report['consistency_px']:.2f} px", still]
        if "forward_percent" in report:
            of = "" if report["normaliser"] == "inter-ocular" else f" of the {report['normaliser']}"
            forward = f"{report['forward_percent']:.1f} %{of}"
            cells += [forward, f"{report['forward_mean_shape_percent']:.1f}"]
        yield cells if len(cells) > 5 else [*cells, "no labels", ""]
        title = training = ""


def films(result: Mapping[str, Any]) -> str:
    """Of `lmk bench --video`: a row for each video, to CSV and to CSV and overlay."""
    columns = ["video", "size", "to CSV", "× plain", "× plain, our runner"]
    columns += ["and overlay", "× plain"]
    rows = []
    for video in result["videos"]:
        height, width = video["size"]
        name = _DRAWN_CLIP if video["file"] == "long.mp4" else video["file"]
        cells = [name, f"{width}×{height}"]
        for row in (video["rows"][name] for name in ("csv", "overlay")):
            cells += [f"{row['frames_per_second']:.0f}", f"{row['speed_up']:.2f}"]
        same = video["rows"]["csv"].get("speed_up_same_runner")
        rows.append([*cells[:4], f"{same:.2f}" if same else cells[3], *cells[4:]])
    return markdown_table(columns, rows, left=2)


# The name of a table -> the JSON that it is of, and what makes it.
TABLES: dict[str, tuple[Path, Callable[[Mapping[str, Any]], str]]] = {
    "packs": (_ROOT / "zoo" / "zoo.json", packs),
    "runners": (_RESULTS / "bench-faces-cpu.json", markdown),
    "films": (_RESULTS / "video-cpu.json", films),
}


def filled(page: str) -> str:
    """`page` with what stands between the marks of each table made anew.

    Raises UserError for a table that has no marks, and for marks of a table that there is not.
    """
    marked = [name for _, name, _ in _MARKED.findall(page)]
    if sorted(marked) != sorted(TABLES):
        raise UserError(
            f"README: got marks of {', '.join(marked) or 'no table'}, expected those of each once: "
            f"{', '.join(TABLES)}; put <!-- table: NAME --> before and <!-- end --> behind a table"
        )

    def made(match: re.Match[str]) -> str:
        path, make = TABLES[match[2]]
        return match[1] + make(json.loads(read_text(path, "what was measured"))) + match[3]

    return _MARKED.sub(made, page)


@click.command()
@click.argument("page", type=FILE_PATH, default=_ROOT / "README.md")
def main(page: Path) -> None:
    """Make the tables of PAGE anew."""
    try:
        write_bytes(page, filled(page.read_text(encoding="utf-8")).encode())
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(page)


if __name__ == "__main__":
    main()
