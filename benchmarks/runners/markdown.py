"""The JSON of `lmk bench` -> the table that README shows, as Markdown."""

from __future__ import annotations

from lmk.benchmarks.plots import markdown_table
from lmk.benchmarks.runners.names import STUDENT, TITLES, parse_name
from lmk.benchmarks.runners.run import BASE
from lmk.benchmarks.runners.tables import Result
from lmk.runtime.runners import AUTO


def markdown(result: Result) -> str:
    """A row a runner: speed at each batch, drift (mean / p99), first result, peak memory.

    Speed is the median of how many times as fast as eager fp32, and of eager fp32 itself the median
    in milliseconds.
    """
    batches = [str(batch) for batch in result["batches"]]
    rows = []
    for name, row in result["runners"].items():
        speeds = [
            f"{values['p50']:.3g} ms" if name == BASE else f"{values['speed_up']:.2f} ×"
            for values in (row["batches"][batch] for batch in batches)
        ]
        drifts = [row[metric] for metric in ("drift_mean", "drift_p99") if metric in row]
        drift = " / ".join(f"{px:#.2g}" if px >= 1e-3 else f"{px:.5f}" for px in drifts)
        whole = [drift, f"{row['first_s']:.1f}", f"{row['rss']:.0f}"]
        rows.append([f"{_title(name)}, {row['precision']}", *speeds, *whole])
    columns = ["", *(f"batch {batch}" for batch in batches)]
    return markdown_table([*columns, "drift, px", "first result, s", "memory, MiB"], rows)


def _title(name: str) -> str:
    """How the table calls a runner."""
    kind = parse_name(name)[0]
    title = f"`--device {AUTO}`" if kind == AUTO else TITLES[kind]
    return f"student, {title}" if name.startswith(STUDENT) else title
