"""Results of a benchmark -> tables on the terminal, and the figures that claims are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from lmk.benchmarks.claims import Claim, check_name
from lmk.benchmarks.machine import busy_warnings
from lmk.benchmarks.plots import screen_table
from lmk.benchmarks.runners.names import BenchOptions
from lmk.benchmarks.timing import ENOUGH
from lmk.runtime.errors import UserError

STEPS = ("switch", "detect", "export", "engine", "refit-trt", "refit-rtx")  # of `making`

Result = Mapping[str, Any]
SPEED = ("p50", "p90", "p99", "max", "throughput", "speed_up", "roofline")
WHOLE = ("drift_mean", "drift_p99", "drift_max", "first_s", "again_s", "rss", "device_memory")


def figures(result: Result) -> dict[str, float]:
    """Every figure by the name that a claim has for it.

    `RUNNER.METRIC@BATCH`, and `RUNNER.METRIC` for the smallest batch and for what has no batch;
    `switch.template_s`, `detect.first_s`, `export.fp32_seconds` and so on of `making`.
    """
    found: dict[str, float] = {}
    smallest = str(min(result["batches"], default=0))
    for name, row in result["runners"].items():
        for batch, values in row["batches"].items():
            for metric in _numbers(values, SPEED):
                found[f"{name}.{metric}@{batch}"] = values[metric]
                if batch == smallest:
                    found[f"{name}.{metric}"] = values[metric]
        found |= {f"{name}.{metric}": row[metric] for metric in _numbers(row, WHOLE)}
    for step, values in result["making"].items():
        for metric, value in values.items():
            inner = value if isinstance(value, Mapping) else {"": value}
            for part, number in inner.items():
                found[f"{step}.{metric}{'_' if part else ''}{part}"] = number
    return found


def reasons(result: Result) -> dict[str, str]:
    """Why there is no figure of some names, or none of a runner, for `Claim.judge`."""
    found = dict(result["left_out"])
    smallest = str(min(result["batches"], default=0))
    for name, row in result["runners"].items():
        for batch, values in row["batches"].items():
            if values["p99"] is None:
                why = f"{values['repeats']} calls, expected {ENOUGH}; give more --seconds"
                found[f"{name}.p99@{batch}"] = why
                if batch == smallest:
                    found[f"{name}.p99"] = why
    return found


def _numbers(values: Mapping[str, Any], metrics: Iterable[str]) -> list[str]:
    return [metric for metric in metrics if values.get(metric) is not None]


def print_result(result: Result, screen: Console) -> None:
    """A table for each batch, one for what has no batch, and a line for each other figure."""
    for batch in result["batches"]:
        screen.print(_speeds(result, str(batch)))
    screen.print(_wholes(result))
    for line in _lines(result):
        screen.print(line)


def _speeds(result: Result, batch: str) -> Table:
    heads = ("p50", "p90", "p99", "max", "crops/s", "x eager", "roofline")
    calls = next(iter(result["runners"].values()))["batches"][batch]["repeats"]
    title = f"batch {batch}: milliseconds, {calls} calls each"
    table = screen_table(title, "runner", heads)
    for name, row in result["runners"].items():
        values = row["batches"][batch]
        times = [_cell(values, metric, ".2f") for metric in SPEED[:4]]
        share = values.get("roofline")
        table.add_row(
            name,
            *times,
            f"{values['throughput']:.1f}",
            f"{values['speed_up']:.2f}" if "speed_up" in values else "-",
            f"{share:.0%}" if share is not None else "-",
        )
    return table


def _wholes(result: Result) -> Table:
    heads = ("drift mean", "p99", "max px", "first", "again", "host MiB", "device MiB")
    title = "drift from eager fp32; seconds from start to first result; peak memory"
    table = screen_table(title, "runner", heads)
    for name, row in result["runners"].items():
        drifts = [_cell(row, metric, ".2g") for metric in WHOLE[:3]]
        times = [_cell(row, metric, ".2f") for metric in WHOLE[3:5]]
        memory = [_cell(row, metric, ".0f") for metric in WHOLE[5:]]
        table.add_row(name, *drifts, *times, *memory)
    return table


def _cell(row: Mapping[str, Any], metric: str, form: str) -> str:
    value = row.get(metric)
    return "-" if value is None else format(value, form)


def _lines(result: Result) -> list[str]:
    making, lines = result["making"], []
    for precision, values in making["export"].items():
        lines.append(f"export {precision}: {values['seconds']:.1f} s")
    for name, values in making["engine"].items():
        cold, cached = values["cold_s"], values["cached_s"]
        lines.append(f"engine {name}: {cold:.1f} s, from the cache {cached:.2f} s")
    if "switch" in making:
        values = making["switch"]
        lines.append(
            f"another category: {values['template_s']:.2f} s composed, {values['rebuild_s']:.1f} s "
            f"exported and verified: {values['times']:g} times faster"
        )
    for name in (name for name in making if name.startswith("refit-")):
        values = making[name]
        lines.append(
            f"another category in an engine ({name.removeprefix('refit-')}): "
            f"{values['refit_s']:.2f} s, built anew {values['rebuild_s']:.1f} s"
        )
    if "detect" in making:
        values = making["detect"]
        again = f", again {values['again_s']:.2f} s" if "again_s" in values else ""
        lines.append(f"lmk detect IMAGE, start to end: {values['first_s']:.2f} s{again}")
    lines += _ceilings(result)
    lines += (f"left out: {name}: {reason}" for name, reason in result["left_out"].items())
    return [*lines, *busy_warnings(result["machine"])]


def _ceilings(result: Result) -> list[str]:
    ceilings, cost = result["ceilings"], result["cost"]
    if not cost:
        return []
    most = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in ceilings["flops"].items())
    does = f"does {most} GFLOP/s and" if most else "moves"  # none measured: of int8 and fp8
    batch, each = next(iter(cost.items()))
    return [
        f"roofline: {each['flops'] / int(batch) / 1e9:.2f} GFLOP a crop; this {result['device']} "
        f"{does} {ceilings['bandwidth'] / 1e9:.0f} GB/s"
    ]


def check_claims(claims: Iterable[Claim], options: BenchOptions, runners: Collection[str]) -> None:
    """Raise UserError for a name that `bench` will have no figure of.

    runners: those that will be tried. What a step of STEPS has is known only afterwards.
    """
    metrics = {runner: (*SPEED, *WHOLE) for runner in runners}
    for claim in claims:
        for name in claim.names:
            if name.partition(".")[0] in STEPS:
                continue
            metric = check_name(claim, name, metrics, options.batches, "batch", SPEED)
            if metric == "p99" and options.repeats < ENOUGH:
                raise UserError(
                    f"assert '{claim.text}': got --repeats {options.repeats}, expected {ENOUGH} "
                    f"or more for '{name}': give more, or claim p90 or max"
                )
