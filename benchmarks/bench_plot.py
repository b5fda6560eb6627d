"""Results of a benchmark -> latency and throughput over batch as a picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmk.benchmarks.bench_options import check_file
from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path
from lmk.runtime.probe import install_line

_SUFFIXES = (".png", ".svg", ".pdf")
_MARKS = "os^vDPX*<>"  # so that lines differ without colour


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
