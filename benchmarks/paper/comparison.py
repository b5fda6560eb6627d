"""Evaluations -> one table beside the paper's: Markdown and JSON, and whether its order holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmk.benchmarks.machine import machine
from lmk.benchmarks.paper.experiments import METHODS, TABLES, PaperCategory, PaperRow, PaperTable
from lmk.benchmarks.paper.grids import (
    EMPTY,
    MEASURES,
    grid_of,
    name_of,
    paper_grid,
    row_of,
    value,
)
from lmk.benchmarks.paper.jobs import read_evaluation
from lmk.benchmarks.paper.plan import EvaluationJob, JobPlan, PaperJob, ReproduceOptions
from lmk.benchmarks.plots import markdown_table
from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header


def compare(
    plan: JobPlan,
    table: PaperTable,
    options: ReproduceOptions,
    missing: Callable[[PaperJob], str | None],
) -> dict[str, Any]:
    """All that is to be said about `table`, fit for JSON.

    lines: each with its category, row, report of `evaluate` or the reason why it is missing.
    grid, paper: columns and rows of texts, ours and the paper's. order, paper_order: whether the
    paper's claim about the order of methods holds, in words, in our figures and in its own.
    budget, notes: what it cost, what to know.
    """
    lines = [_line(table, *entry, missing) for entry in plan.of(table)]
    known_paper, made_on = None if plan.own_data else table.paper, machine()
    place = f"tables made on: {made_on['gpu'] or made_on['cpu']}, {made_on['cores']} cores"
    return {
        "table": table.name,
        "title": table.title,
        "columns": table.columns,
        "own_data": plan.own_data,
        "grid": grid_of(table, lines, known_paper),
        "paper": paper_grid(table),
        "order": list(_order(table, lines)),
        "paper_order": list(_paper_order(table)),
        "budget": [*_budget(plan, table, options, lines), place],
        "notes": list(_notes(table, lines)),
        "lines": lines,
        "machine": made_on,
    }


def write(folder: Path, result: dict[str, Any]) -> tuple[Path, Path]:
    """Write tables/NAME.md and tables/NAME.json in `folder` and return both paths."""
    stem = folder / "tables" / result["table"]
    paths = stem.with_suffix(".md"), stem.with_suffix(".json")
    write_bytes(paths[0], markdown(result).encode())
    write_bytes(paths[1], json.dumps(result, indent=1).encode())
    return paths


def markdown(result: dict[str, Any]) -> str:
    """The table with all that belongs to it, as Markdown."""
    parts = [f"# {result['table']}: {result['title']}", markdown_table(**result["grid"], left=2)]
    for name in ("order", "budget", "notes"):
        if result[name]:
            parts.append("\n".join(f"- {line}" for line in result[name]))
    if result["paper"]["rows"]:
        parts += [f"## {paper_title(result)}", markdown_table(**result["paper"], left=2)]
    if result["paper_order"]:
        parts.append("\n".join(f"- {line}" for line in result["paper_order"]))
    return "\n\n".join(parts) + "\n"


def paper_title(result: dict[str, Any]) -> str:
    """The heading of the paper's figures: nobody shall read them against other data."""
    if result["own_data"]:
        return "The paper's figures: NOT the same data, on its own sets and with its own budget"
    return "The paper's figures, with its own budget"


def _line(
    table: PaperTable,
    category: PaperCategory,
    row: PaperRow,
    job: EvaluationJob,
    missing: Callable[[PaperJob], str | None],
) -> dict[str, Any]:
    """One pack on one test set: its report and cost, or why there is none."""
    line: dict[str, Any] = {
        "category": name_of(category),
        "paper_category": category.paper,
        "method": row.method,
        "core_epoch": row.core_epoch,
        "images": row.images,
        "report": None,
        # The root of the trouble first: without a core there is no pack, nor its evaluation.
        "missing": missing(job.pack.core) or missing(job.pack) or missing(job),
    }
    if line["missing"]:
        return line
    report = read_evaluation(job)
    if report is None:
        return {**line, "missing": "not made yet"}
    header = read_header(job.pack.config.output)
    line |= {"report": report, "steps": header["step"], "seconds": header["seconds"]}
    line |= {"batch": header["config"]["batch"], "adapted_images": header["images"]}
    if job.pack.config.core is not None and (path := job.pack.config.core).exists():
        history = read_header(path).get("history") or [{}]
        line["core_pck_percent"] = history[-1].get("pck", float("nan")) * 100
    return line


def _order(table: PaperTable, lines: list[dict[str, Any]]) -> Iterator[str]:
    """Per set and measure, whether projection < finetune < scratch, in words."""
    methods = _ordered_methods(table)
    for category in dict.fromkeys(line["category"] for line in lines):
        own = {line["method"]: line for line in lines if line["category"] == category}
        for measure in MEASURES[table.columns] if methods else ():
            figures = {method: value(own[method], measure) for method in methods}
            yield f"{category}, {measure}: {_verdict(figures, own)}"


def _paper_order(table: PaperTable) -> Iterator[str]:
    """The same of the paper's figures: it does not always hold there either."""
    methods = _ordered_methods(table)
    for paper in dict.fromkeys(paper for paper, _, _ in table.paper):
        for measure in MEASURES[table.columns] if methods else ():
            figures = {m: table.paper.get((paper, PaperRow(m), measure)) for m in methods}
            if None not in figures.values():
                yield f"{paper}, {measure}: {_verdict(figures, {})}"


def _ordered_methods(table: PaperTable) -> list[str]:
    """Those of the paper's methods that a table compares, best first; [] for fewer than two."""
    methods = [method for method in reversed(METHODS) if PaperRow(method) in table.rows]
    return methods if len(methods) > 1 else []


def _verdict(figures: dict[str, float | None], lines: dict[str, dict[str, Any]]) -> str:
    wanted = " < ".join(figures)
    absent = [method for method, figure in figures.items() if figure is None]
    if absent:
        return f"no figure for {', '.join(absent)}, so the order cannot be judged"
    known = {method: figure for method, figure in figures.items() if figure is not None}
    found = sorted(known, key=lambda method: known[method])
    text = " < ".join(f"{method} {known[method]:.2f}" for method in found)
    values = list(known.values())
    rises = all(a < b for a, b in zip(values, values[1:], strict=False))
    holds = "holds" if rises else "does not hold"
    blobs = [m for m in known if m in lines and lines[m]["report"]["collapsed"]]
    warning = f", but {' and '.join(blobs)} collapsed, so it says nothing" if blobs else ""
    return f"{text}: {wanted} {holds}{warning}"


def _budget(
    plan: JobPlan, table: PaperTable, options: ReproduceOptions, lines: list[dict[str, Any]]
) -> Iterator[str]:
    """What was spent, on what, in sentences."""
    made = [line for line in lines if line["report"]]
    batch = f" of {made[0]['batch']} images" if made else ""
    yield (
        f"budget: {options.steps:,} steps{batch} for every adaptation, preset {options.preset} "
        "(the paper: 200,000 steps of 48)"
    )
    job = plan.of(table)[0][2].pack
    try:
        header = read_header(job.core.path())
        network, config = header["network"], header["config"]
        units = (unit for unit in ("steps", "epochs", "minutes") if config.get(unit))
        lengths = [f"{config[unit]:g} {unit}" for unit in units] or ["of unknown training"]
        yield (
            f"core: {job.core.path().stem}, {lengths[0]}, width {network['width']}, "
            f"{network['input_size']} px, {header['seconds']:,.0f} s (the paper: width 256, "
            "128 px, 110 epochs)"
        )
    except (UserError, KeyError):
        yield f"core: {job.core.path().stem}, not made yet"
    if made:
        fitted = "not " if made[0]["report"]["leak_free"] else ""
        seconds = [line["seconds"] for line in made]
        yield f"crops: {options.crop}, {fitted}fitted to the annotation"
        yield f"adaptation took {min(seconds):,.0f} to {max(seconds):,.0f} s; one run each"


def _notes(table: PaperTable, lines: list[dict[str, Any]]) -> Iterator[str]:
    """What is left out or missing and why, what has collapsed, what has no labels."""
    kept = {row.core_epoch for row in table.rows}
    for row in TABLES[table.name].rows:
        if row.core_epoch not in kept:
            yield f"core after {row.core_epoch} epochs: left out, the core has no more than that"
    for line in lines:
        if line["missing"]:
            yield f"{line['category']}, {row_of(line).label}: missing; {line['missing']}"
    made = [line for line in lines if line["report"]]
    for line in made:
        if line["report"]["collapsed"]:
            because = line["report"].get("collapsed_because", "")
            yield f"† {line['category']}, {row_of(line).label}: collapsed, {because}"
    bare = [line["category"] for line in made if "forward_percent" not in line["report"]]
    for category in dict.fromkeys(bare):
        yield f"{category}: no annotated points, hence no forward and backward errors"
    if any("forward_percent" in line["report"] for line in made):
        normalisers = {line["report"].get("normaliser") for line in made} - {None}
        yield f"forward, backward: % of the {', '.join(sorted(normalisers))}; {EMPTY}: no figure"
    yield (
        "mean shape: what a detector that never looks would get; spread: rms distance of the "
        "landmarks from their centre; consistency and spread in px of a crop of 128"
    )
