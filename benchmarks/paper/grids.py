"""Lines of a table -> columns and rows of texts, ours and the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from lmk.benchmarks.paper.experiments import FigureKey, PaperCategory, PaperRow, PaperTable

EMPTY = "–"  # a figure that is not there
MEASURES = {
    "comparison": ("forward",),
    "regression": ("forward", "backward"),
    "consistency": ("consistency",),
    "ablation": ("forward", "backward", "consistency"),
}
_KEYS = {"forward": "forward_percent", "backward": "backward_percent"}
_KEYS["consistency"] = "consistency_px"
_UNITS = {"forward": "forward, %", "backward": "backward, %", "consistency": "consistency, px"}
Line = dict[str, Any]  # see `comparison.compare`


class Grid(TypedDict):
    """Texts of a table; the first two columns say what a row is."""

    columns: list[str]
    rows: list[list[str]]


def name_of(category: PaperCategory) -> str:
    """The test set, and what was adapted to if that is another."""
    test, adapted = category.test.label, category.adapted.label
    return test if test == adapted else f"{test} (adapted to {adapted})"


def value(line: dict[str, Any], measure: str) -> float | None:
    """One figure of a line: in %, or pixels for consistency; None where there is none."""
    return (line["report"] or {}).get(_KEYS[measure])


def row_of(line: Line) -> PaperRow:
    """The row of a table that a line is of."""
    return PaperRow(line["method"], line["core_epoch"], line["images"])


def grid_of(table: PaperTable, lines: list[Line], paper: Mapping[FigureKey, float] | None) -> Grid:
    """Our figures; `paper` adds a column with its own where the data are the same."""
    build = {
        "comparison": _comparison,
        "regression": _regression,
        "consistency": _consistency,
        "ablation": _ablation,
    }[table.columns]
    return build(lines, paper)


def paper_grid(table: PaperTable) -> Grid:
    """What the paper has, a row for each of its sets and rows; figures not known stay out."""
    measures = [m for m in MEASURES[table.columns] if any(key[2] == m for key in table.paper)]
    columns = ["the paper's set", "method", *(_UNITS[measure] for measure in measures)]
    rows = []
    for (method, paper), figure in table.others.items():
        rows.append([paper, method, _text(figure)])
    for paper, row in dict.fromkeys((paper, row) for paper, row, _ in table.paper):
        figures = [table.paper.get((paper, row, measure)) for measure in measures]
        rows.append([paper, row.label, *map(_text, figures)])
    sets = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: sets.index(row[0]))
    if table.core_quality:
        columns.append("PCKh of the core, %")
        rows = [[*row, _text(table.core_quality[None])] for row in rows]
        for epoch, quality in table.core_quality.items():
            if epoch is not None:
                row = PaperRow("projection", core_epoch=epoch)
                rows.append([EMPTY, row.label, *[EMPTY] * len(measures), _text(quality)])
    return {"columns": columns, "rows": rows}


def _comparison(lines: list[Line], paper: Mapping[FigureKey, float] | None) -> Grid:
    columns = ["test set", "method", _UNITS["forward"], *_paper_column(paper)]
    columns += ["mean shape", "consistency, px", "spread, px"]
    rows = []
    for line in lines:
        figures = [value(line, "forward"), *_paper_figure(line, "forward", paper)]
        figures += [_of(line, "forward_mean_shape_percent"), value(line, "consistency")]
        rows.append([*_head(line), *map(_text, [*figures, _of(line, "spread_px")])])
    return {"columns": columns, "rows": rows}


def _regression(lines: list[Line], paper: Mapping[FigureKey, float] | None) -> Grid:
    """Two rows a line, forward and backward; a column for each number of training images."""
    counts = sorted({count for line in lines for count in _by_images(line, "forward")})
    columns = ["test set", "method", "error, %", *map(str, counts), "all"]
    columns += [*_paper_column(paper), "mean shape", "spread, px"]
    rows = []
    for line in lines:
        for measure in MEASURES["regression"]:
            by_images = _by_images(line, measure)
            figures = [value(line, measure), *_paper_figure(line, measure, paper)]
            figures += [_of(line, f"{measure}_mean_shape_percent"), _of(line, "spread_px")]
            some = [by_images.get(count, EMPTY) for count in counts]
            rows.append([*_head(line), measure, *some, *map(_text, figures)])
    return {"columns": columns, "rows": rows}


def _by_images(line: Line, measure: str) -> dict[int, str]:
    """Number of training images, fewer than all -> mean and spread over the repeats."""
    report = line["report"] or {}
    return {
        entry["images"]: f"{entry['mean_percent']:.2f} ± {entry['std_percent']:.2f}"
        for entry in report.get(f"{measure}_by_images", [])
        if entry["images"] != report["regressor_images"]
    }


def _consistency(lines: list[Line], paper: Mapping[FigureKey, float] | None) -> Grid:
    each = [_of(line, "consistency_px_each") or [] for line in lines]
    count = max(map(len, each), default=0)
    columns = ["test set", "method", *(f"#{index + 1}" for index in range(count)), "mean"]
    columns += [*_paper_column(paper), "spread, px"]
    rows = []
    for line, errors in zip(lines, each, strict=True):
        figures = [*errors, *[None] * (count - len(errors)), value(line, "consistency")]
        figures += [*_paper_figure(line, "consistency", paper), _of(line, "spread_px")]
        rows.append([*_head(line), *map(_text, figures)])
    return {"columns": columns, "rows": rows}


def _ablation(lines: list[Line], paper: Mapping[FigureKey, float] | None) -> Grid:
    columns = ["test set", "adaptation", "PCK of the core, %", "images adapted to"]
    for measure in MEASURES["ablation"]:
        columns += [_UNITS[measure], *_paper_column(paper)]
        columns += ["mean shape"] * (measure != "consistency")
    rows = []
    for line in lines:
        images = str(line["images"] or "all")
        texts = [_text(line.get("core_pck_percent")), images]
        for measure in MEASURES["ablation"]:
            figures = [value(line, measure), *_paper_figure(line, measure, paper)]
            figures += [_of(line, f"{measure}_mean_shape_percent")] * (measure != "consistency")
            texts += map(_text, figures)
        rows.append([*_head(line), *texts, _text(_of(line, "spread_px"))])
    return {"columns": [*columns, "spread, px"], "rows": rows}


def _head(line: Line) -> list[str]:
    collapsed = (line["report"] or {}).get("collapsed")
    return [line["category"], row_of(line).label + " †" * bool(collapsed)]


def _of(line: Line, key: str) -> Any:
    return (line["report"] or {}).get(key)


def _paper_column(paper: Mapping[FigureKey, float] | None) -> list[str]:
    return [] if paper is None else ["the paper's"]


def _paper_figure(
    line: Line, measure: str, paper: Mapping[FigureKey, float] | None
) -> list[float | None]:
    return [] if paper is None else [paper.get((line["paper_category"], row_of(line), measure))]


def _text(figure: float | None) -> str:
    return EMPTY if figure is None or figure != figure else f"{figure:.2f}"
