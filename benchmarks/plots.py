"""Figures -> tables, as Markdown or on the terminal, and plots, by matplotlib of [bench]."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from lmk.runtime.errors import UserError, install_line
from lmk.runtime.files import atomic_path
from lmk.runtime.model import LIMITS_PX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg", ".pdf")
_MARKS, _DASHES = "os^vDPX*<>", ("-", "--", ":", "-.")  # so that lines differ without colour
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6a00")  # told apart by all eyes
_INK = "#010203"  # stands for the colour of the text around a drawing
Series = Mapping[str, Sequence[tuple[float, float]]]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """The rows below their columns, the first `left` of which begin at the left."""
    rule = [":--"] * left + ["--:"] * (len(columns) - left)
    cells = ([text.replace("|", "\\|") for text in row] for row in (columns, *rows))
    head, *lines = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, f"| {' | '.join(rule)} |", *lines])


def screen_table(title: str, first: str, heads: Iterable[str]) -> Table:
    """An empty table: a column `first` of names, and one of figures for each of `heads`."""
    columns = (Column(head, justify="right") for head in heads)
    return Table(Column(first, no_wrap=True), *columns, title=title, title_justify="left")


def check_matplotlib(use: str) -> None:
    """Raise UserError where matplotlib is not installed, which is needed for `use`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"matplotlib: not installed, needed for {use}; {install_line('bench')}")


def check_plot(path: Path) -> None:
    """Raise UserError unless a picture can be drawn to `path`: before minutes of measuring."""
    if path.suffix not in _SUFFIXES:
        raise UserError(
            f"plot: got '{path}', expected a name that ends in {', '.join(_SUFFIXES)}; rename it"
        )
    check_matplotlib("--plot")


def line_plot(title: str, x_label: str, y_label: str, series: Series, log_x: bool = False) -> str:
    """An <svg> of the lines (x, y) in `series`, their names below; `title` is for who hears it.

    It scales with the page and has the colour of the text around it; the y axis begins at 0. Raises
    ValueError without a point, or for x of 0 or less with `log_x`.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("no point to plot")
    if log_x and min(x for x, _ in points) <= 0:
        raise ValueError("a logarithmic axis needs x over 0")
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    # The same drawing has the same bytes; texts are texts; what is a name is no formula.
    fixed = {"svg.hashsalt": "lmk", "svg.fonttype": "none", "text.parse_math": False}
    with _figure((5.6, 3.4), {**ink, **fixed, "axes.edgecolor": _INK}) as figure:
        axes = figure.subplots()
        for index, line in enumerate(series.values()):
            style: dict[str, Any] = {
                "color": _COLOURS[index % 5],
                "linestyle": _DASHES[index % 4],
                "marker": _MARKS[index % 10] if len(line) < 20 else None,  # or it is a curve
                "markersize": 4,
            }
            axes.plot(*zip(*line, strict=True), **style)
        axes.set(xlabel=x_label, ylabel=y_label, xscale="log" if log_x else "linear")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        figure.legend(axes.lines, list(series), loc="outside lower center", ncols=3, frameon=False)
        drawn, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    text = drawn.getvalue().replace(_INK, "currentColor")
    text = re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :])  # several stand on a page
    head = f'class="plot" role="img" aria-label="{escape(title)}"'
    return re.sub(r'width="[^"]*" height="[^"]*"', head.replace("\\", r"\\"), text, count=1).strip()


def write_plot(path: Path, result: Mapping[str, Any]) -> None:
    """Draw median latency, its band up to the 90th percentile, and throughput, over batch.

    Where drift was measured also the speed at the smallest batch over it, with the drift that
    `--device auto` allows as a line.
    """
    here, threads = result["machine"], result["threads"]
    where = here["gpu"] if result["device"] == "cuda" else here["cpu"]
    noun = "thread" if threads == 1 else "threads"
    drifted = any(row.get("drift_mean") for row in result["runners"].values())
    with _figure((16 if drifted else 11, 4.6), {}) as figure:
        from matplotlib.ticker import LogLocator, NullLocator

        left, right, *third = figure.subplots(1, 3 if drifted else 2)
        for index, (name, row) in enumerate(result["runners"].items()):
            batches, rows = [int(batch) for batch in row["batches"]], row["batches"].values()
            p50, p90, rate = ([values[m] for values in rows] for m in ("p50", "p90", "throughput"))
            colour, mark = f"C{index % 10}", _MARKS[index % len(_MARKS)]
            left.plot(batches, p50, label=name, marker=mark, color=colour)
            left.fill_between(batches, p50, p90, color=colour, alpha=0.15, linewidth=0)
            right.plot(batches, rate, label=name, marker=mark, color=colour)
        for axes, title in ((left, "latency, ms: median, band to p90"), (right, "crops a second")):
            axes.set(title=title, xlabel="batch", xscale="log", yscale="log")
            axes.set_xticks(result["batches"], [str(batch) for batch in result["batches"]])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.3)
        left.legend(fontsize="small")
        if third:
            _speed_over_drift(third[0], result)
        title = f"{result['model']['category']} on {where}, {threads} {noun}"
        figure.suptitle(title, fontsize="medium")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120)


def _speed_over_drift(axes: Axes, result: Mapping[str, Any]) -> None:
    """Draw a mark for each runner, that of the throughput beside; eager fp32 has no drift."""
    batch = str(result["batches"][0])
    for index, row in enumerate(result["runners"].values()):
        if drift := row.get("drift_mean"):
            mark, speed = _MARKS[index % len(_MARKS)], row["batches"][batch]["speed_up"]
            axes.plot(drift, speed, marker=mark, color=f"C{index % 10}", linestyle="none")
    axes.axvline(LIMITS_PX["bf16"]["mean"], color="0.5", linestyle=":")
    title = f"times as fast as eager fp32 at batch {batch}, over drift"
    axes.set(title=title, xlabel="mean drift, px of the crop; dotted: what auto allows")
    axes.set(xscale="log", ylim=(0, None))
    axes.grid(alpha=0.3)


@contextmanager
def _figure(size: tuple[float, float], settings: dict[Any, Any]) -> Iterator[Figure]:
    """A figure of `size` inches that needs no display, drawn with `settings` of matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(settings):
        yield Figure(figsize=size, layout="constrained")
