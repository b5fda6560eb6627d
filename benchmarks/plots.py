"""Series of numbers -> a small line plot as inline SVG, which scales with the page."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lmk.benchmarks.runners import check_file
from lmk.runtime.errors import UserError, install_line
from lmk.runtime.files import atomic_path

_SUFFIXES = (".png", ".svg", ".pdf")
_MARKS = "os^vDPX*<>"  # so that lines differ without colour

WIDTH, HEIGHT = 560, 280  # units of the drawing, without the names
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 28, 12, 44
_NAMES_A_ROW, _NAME_HEIGHT = 3, 22
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 4")  # so that lines differ without colour
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6a00")  # told apart by all eyes
_LEAST = 1e-9  # below it an axis has nothing to show
Series = Mapping[str, Sequence[tuple[float, float]]]


def line_plot(title: str, x_label: str, y_label: str, series: Series, log_x: bool = False) -> str:
    """An <svg> of the lines (x, y) in `series`, their names below; `title` is for who hears it.

    The y axis begins at 0. Raises ValueError without a point, or for x of 0 or less with `log_x`.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("no point to plot")
    if log_x and min(x for x, _ in points) <= 0:
        raise ValueError("a logarithmic axis needs x over 0")
    x_ticks = _decades(points) if log_x else _ticks(max(x for x, _ in points))
    y_ticks = _ticks(max(y for _, y in points))
    low, high = (math.log10(x_ticks[i]) if log_x else x_ticks[i] for i in (0, -1))

    def place(x: float, y: float) -> tuple[float, float]:
        share = ((math.log10(x) if log_x else x) - low) / ((high - low) or 1)
        across = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        return across, HEIGHT - _BOTTOM - y / y_ticks[-1] * (HEIGHT - _TOP - _BOTTOM)

    height = HEIGHT + _NAME_HEIGHT * math.ceil(len(series) / _NAMES_A_ROW)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        'class="plot" xmlns="http://www.w3.org/2000/svg">'
    ]
    for tick in x_ticks:
        x, y = place(tick, 0)
        parts += [_line((x, _TOP), (x, y), "grid"), _text(x, y + 17, f"{tick:g}", "middle")]
    for tick in y_ticks:
        x, y = place(x_ticks[0], tick)
        parts += [
            _line((x, y), (WIDTH - _RIGHT, y), "grid"),
            _text(x - 6, y + 5, f"{tick:g}", "end"),
        ]
    parts.append(_text((WIDTH + _LEFT) / 2, HEIGHT - 6, escape(x_label), "middle"))
    middle = (HEIGHT - _BOTTOM) / 2
    parts.append(_text(15, middle, escape(y_label), "middle", f"rotate(-90 15 {middle})"))
    for index, (name, line) in enumerate(series.items()):
        style = f'stroke="{_COLOURS[index % 5]}" stroke-dasharray="{_DASHES[index % 5]}"'
        joined = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        parts.append(f'<polyline points="{joined}" {style}/>')
        row, column = divmod(index, _NAMES_A_ROW)
        x = _LEFT + column * (WIDTH - _LEFT) / _NAMES_A_ROW
        y = HEIGHT + _NAME_HEIGHT * (row + 0.5)
        parts.append(f'<polyline points="{x:.1f},{y} {x + 26:.1f},{y}" {style}/>')
        parts.append(_text(x + 32, y + 5, escape(name), "start"))
    return "".join([*parts, "</svg>"])


def _line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, transform: str = "") -> str:
    turned = f' transform="{transform}"' if transform else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{text}</text>'


def _ticks(most: float) -> list[float]:
    """0 and up to six more, evenly, the last one `most` or over it."""
    if most < _LEAST:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most))
    step = next(power * s for s in (0.2, 0.5, 1.0, 2.0) if power * s * 6 >= most)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def _decades(points: Sequence[tuple[float, float]]) -> list[float]:
    """Powers of ten around the x of `points`."""
    low = math.floor(math.log10(min(x for x, _ in points)))
    high = math.ceil(math.log10(max(x for x, _ in points)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def check_plot(path: Path) -> None:
    """Raise UserError unless a picture can be drawn to `path`: before minutes of measuring."""
    if path.suffix not in _SUFFIXES:
        raise UserError(
            f"plot: got '{path}', expected a name that ends in {', '.join(_SUFFIXES)}; rename it"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"matplotlib: not installed, needed for --plot; {install_line('bench')}")
    check_file(path)


def write_plot(path: Path, result: Mapping[str, Any]) -> None:
    """Draw median latency, its band up to the 90th percentile, and throughput, over batch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)  # no display is needed
    left, right = figure.subplots(1, 2)
    for index, (name, row) in enumerate(result["runners"].items()):
        batches = [int(batch) for batch in row["batches"]]
        columns = {
            metric: [values[metric] for values in row["batches"].values()]
            for metric in ("p50", "p90", "throughput")
        }
        style = {"marker": _MARKS[index % len(_MARKS)], "color": f"C{index % 10}"}
        left.plot(batches, columns["p50"], label=name, **style)
        left.fill_between(
            batches, columns["p50"], columns["p90"], color=style["color"], alpha=0.15, linewidth=0
        )
        right.plot(batches, columns["throughput"], label=name, **style)
    for axes, title in ((left, "latency, ms: median, band to p90"), (right, "crops a second")):
        axes.set(title=title, xlabel="batch", xscale="log", yscale="log")
        axes.set_xticks(result["batches"], [str(batch) for batch in result["batches"]])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
    left.legend(fontsize="small")
    figure.suptitle(_title(result), fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _title(result: Mapping[str, Any]) -> str:
    here, threads = result["machine"], result["threads"]
    where = here["gpu"] if result["device"] == "cuda" else here["cpu"]
    noun = "thread" if threads == 1 else "threads"
    return f"{result['model']['category']} on {where}, {threads} {noun}"
