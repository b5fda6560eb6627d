"""Tables and figures made so far -> one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from lmk.benchmarks.paper.comparison import paper_title
from lmk.benchmarks.paper.experiments import TABLES
from lmk.benchmarks.paper.figures import CAPTION
from lmk.benchmarks.paper.grids import Line, row_of, value
from lmk.benchmarks.plots import Series, line_plot
from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes

TEMPLATE = Path(__file__).with_name("page.html.jinja")
NAME = "index.html"


def write(folder: Path) -> Path:
    """Write `folder`/index.html of its tables/*.json and figures/*.jpg, and return its path.

    Raises UserError where no table was ever made.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    tables = read_tables(folder)
    if not tables:
        raise UserError(f"{folder}: got no table, expected some; run `lmk reproduce table1`")
    for table in tables:
        table["paper_title"] = paper_title(table)
        table["plots"] = [(title, Markup(svg)) for title, svg in plots(table)]
    # Texts are escaped; only the drawings of ours go in as they are.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text())
    text = template.render(tables=tables, figures=list(_figures(folder)))
    write_bytes(folder / NAME, text.encode())
    return folder / NAME


def read_tables(folder: Path) -> list[dict[str, Any]]:
    """What `comparison.write` has left in `folder`, in the order of the paper."""
    paths = [folder / "tables" / f"{name}.json" for name in TABLES]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def _figures(folder: Path) -> Iterator[dict[str, str]]:
    """Each picture as a data URI with its caption."""
    for path in sorted((folder / "figures").glob("*.jpg")):
        with Image.open(path) as image:
            caption = image.info.get(CAPTION, path.stem.encode()).decode()
            size = image.size
        data = base64.b64encode(path.read_bytes()).decode()
        yield {
            "name": path.stem,
            "caption": caption,
            "uri": f"data:image/jpeg;base64,{data}",
            "width": str(size[0]),
            "height": str(size[1]),
        }


def plots(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(title, <svg>) of whatever a table has to draw, for each of its test sets."""
    made = [line for line in table["lines"] if line["report"]]
    for category in dict.fromkeys(line["category"] for line in made):
        lines = [line for line in made if line["category"] == category]
        for what, axes, series, log_x in _drawings(table, lines):
            kept = {name: points for name, points in series.items() if points}
            if kept:
                title = f"{category}: {what}"
                yield title, line_plot(title, *axes, kept, log_x)


Drawing = tuple[str, tuple[str, str], Series, bool]


def _drawings(table: dict[str, Any], lines: list[Line]) -> Iterator[Drawing]:
    if table["columns"] == "consistency":
        series: Series = {
            row_of(line).label: list(enumerate(line["report"]["consistency_px_each"], 1))
            for line in lines
        }
        yield "steadiest landmark first", ("landmark", "consistency, px"), series, False
    if table["columns"] == "regression":
        for measure in ("forward", "backward"):
            axes = "training images of the regressor", f"{measure}, %"
            series = {
                row_of(line).label: [
                    (entry["images"], entry["mean_percent"])
                    for entry in line["report"].get(f"{measure}_by_images", [])
                ]
                for line in lines
            }
            yield f"{measure} error by training images", axes, series, True
        series = {}
        for line in lines:
            if curve := line["report"].get("forward_curve"):
                shares = [100 * share for share in curve["share"]]
                pairs = zip(curve["threshold_percent"], shares, strict=True)
                series[row_of(line).label] = list(pairs)
        axes = "forward error up to, %", "share of test images, %"
        yield "forward errors, cumulative", axes, series, False
    if table["table"] in ("table4", "table5"):
        yield from _ablations(table["table"], lines)


def _ablations(name: str, lines: list[Line]) -> Iterator[Drawing]:
    """Errors over the quality of the core, or over the number of images adapted to."""
    key, label = {
        "table4": ("core_pck_percent", "PCK of the core, %"),
        "table5": ("adapted_images", "images adapted to"),
    }[name]
    for measure, unit in (("forward", "%"), ("consistency", "px")):
        points = [
            (line[key] if line["images"] is None else line["images"], figure)
            for line in lines
            if line.get(key) is not None and (figure := value(line, measure)) is not None
        ]
        axes = label, f"{measure}, {unit}"
        yield f"{measure} by {label}", axes, {"projection": sorted(points)}, name == "table5"
