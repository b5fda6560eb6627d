"""Reports of evaluations -> tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from lmk.runtime.terminal import console, output

FEW_IMAGES = 20  # of a test set: below it every figure is rough


def print_evaluation(reports: Sequence[Mapping[str, Any]]) -> None:
    """Tables of the measures of packs on one data set, on standard output; warnings on the other.

    Backward errors of a pack that has collapsed are crossed out: they come out close to nothing.
    """
    rows = [row for report in reports for row in _variants(report)]
    screen = output()
    screen.print(_measures(rows), soft_wrap=False)
    for row in rows:
        screen.print(f"{row['label']}, px of each landmark, ascending: {_landmarks(row)}")
    for row in rows:
        if max(len(row.get(f"{name}_by_images", ())) for name in ("forward", "backward")) > 1:
            screen.print(_by_images(row), soft_wrap=False)
    for row in rows:
        for line in _warnings(row):
            console().print(f"{row['label']}: {line}")


def print_naming(report: Mapping[str, Any]) -> None:
    """How far named points are off in images that were left out, on standard error."""
    units = {"px": "px"}
    if "error_photo_px" in report:
        units["photo_px"] = "px of\nphoto"
    share = report["normaliser"]
    units |= {"percent": f"% of {share}"} if share else {"box_percent": "% of box"}
    how = "a third of them" if report.get("learnt") else "each"
    table = Table(title=Text(f"named from {report['images']} images, {how} left out in turn"))
    table.add_column("point")
    table.add_column("images", justify="right")
    for unit in units.values():
        table.add_column(unit, justify="right")
        table.add_column("mean\nshape", justify="right")
    whole = {"name": "all", **report}
    for row in [*report["points"], whole]:
        pairs = [(row[f"error_{key}"], row[f"mean_shape_{key}"]) for key in units]
        table.add_row(
            Text(row["name"]), str(row["images"]), *(_px(value) for pair in pairs for value in pair)
        )
    screen = console()
    screen.print(table, soft_wrap=False)
    if learnt := report.get("learnt"):
        screen.print(f"learnt, with maps of their own: {', '.join(learnt)}")
    if left_out := report.get("left_out"):
        screen.print(
            f"left out: {', '.join(left_out)}: no better than the mean shape; the landmarks do not "
            "tell where they are" + ("" if "learnt" in report else ": --learn 5m may")
        )


def _variants(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A report and, beside it, that of its crops that do not know the annotation."""
    label, other = report["pack"].removesuffix(".safetensors"), report.get("leak_free_variant")
    if other is None:
        return [{**report, "label": label}]
    return [{**row, "label": f"{label}, crop {row['crop']}"} for row in (report, other)]


def _at_least(row: Mapping[str, Any], measure: str, baseline: str) -> bool:
    """Whether an error is there and nearly that of its baseline, or over it."""
    value, least = row.get(measure), row.get(baseline)
    return value is not None and least is not None and value >= 0.95 * least


def _measures(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each pack and crop; beside each number what says how much it is worth."""
    first = rows[0]
    columns = ["consistency\npx", "not\nmoving", "spread\npx"]
    caption = "px: of crops of 128"
    for row in rows:
        if "normaliser" in row:
            columns += ["covered\n%", "forward\n%", "mean\nshape", "backward\n%", "mean\nshape"]
            caption += f"; covered: % of the points; other %: of the {row['normaliser']}"
            break
    if any(row["batch_norm"] == "batch" for row in rows):
        caption += "; batch-norm: statistics of each batch"
    if not all(row["leak_free"] for row in rows):
        caption += "\ncrop annotation: tells where the points are, and so flatters"
    title = f"{first['data']}: {first['test_images']} test images"
    table = Table(title=Text(title), caption=Text(caption))
    table.add_column("pack")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        cells = [_px(row[name]) for name in ("consistency_px", "consistency_still_px", "spread_px")]
        if "covered_percent" in row:
            cells.append(_px(row["covered_percent"]))
        for name in ("forward", "backward"):
            if f"{name}_percent" in row:
                value = f"{row[f'{name}_percent']:.2f}"
                cells += [_backward(row, value) if name == "backward" else Text(value)]
                cells += [Text(f"{row[f'{name}_mean_shape_percent']:.2f}")]
        table.add_row(Text(row["label"]), *cells)
    return table


def _by_images(row: Mapping[str, Any]) -> Table:
    """The errors of regressors that were fitted to fewer images."""
    caption = "± over the choices of images; about as many images as unknowns fit worst"
    title = Text(f"{row['label']}, fitted to fewer images")
    table = Table(title=title, caption=Text(caption))
    for column in ("images", "forward %", "mean shape", "backward %", "mean shape"):
        table.add_column(column, justify="right")
    errors = {
        name: {entry["images"]: entry for entry in row[f"{name}_by_images"]}
        for name in ("forward", "backward")
    }
    for images in sorted(errors["forward"].keys() | errors["backward"].keys()):
        cells = []
        for name, entries in errors.items():
            entry = entries.get(images)  # one direction may be solvable, the other not
            value = _with_spread(entry) if entry else "-"
            cells += [_backward(row, value) if name == "backward" else Text(value)]
            cells += [Text(f"{entry['mean_shape_percent']:.2f}" if entry else "-")]
        table.add_row(str(images), *cells)
    return table


def _with_spread(entry: Mapping[str, Any]) -> str:
    """Mean and spread over the repeats; one choice has no spread."""
    spread = f" ± {entry['std_percent']:.2f}" if entry["repeats"] > 1 else ""
    return f"{entry['mean_percent']:.2f}{spread}"


def _backward(row: Mapping[str, Any], value: str) -> Text:
    """Crossed out if the pack has collapsed, in brackets for where there are no styles."""
    return Text(f"({value})", style="strike") if row["collapsed"] else Text(value)


def _px(value: float | None) -> Text:
    return Text("-" if value is None else f"{value:.2f}")


def _landmarks(row: Mapping[str, Any]) -> str:
    """Consistency of each landmark, ascending; those that were never in sight are counted."""
    lost = sum(value is None for value in row["consistency_px_landmarks"])
    words = [f"{value:.1f}" for value in row["consistency_px_each"]]
    return "  ".join(words) + (f"  and {lost} always out of sight" if lost else "")


def _warnings(row: Mapping[str, Any]) -> Iterator[str]:
    """What takes the worth from the numbers, or was left out of them."""
    if row["collapsed"]:
        yield f"collapsed: {row['collapsed_because']}; its errors, in brackets, mean nothing"
    elif _at_least(row, "consistency_px", "consistency_still_px"):
        yield "its landmarks are no steadier than points that never move"
    for name in ("forward", "backward"):
        if _at_least(row, f"{name}_percent", f"{name}_mean_shape_percent"):
            yield f"{name}: no better than the mean shape, which needs no landmarks at all"
    if row["test_images"] < FEW_IMAGES:
        yield f"{row['test_images']} test images are few, expected {FEW_IMAGES} or more"
    for key, why in (
        ("images_incomplete", "a point is missing"),
        ("images_without_length", "the length to divide by is 0 or missing"),
    ):
        if row.get(key):
            yield f"{row[key]} images left out of the regressors: {why}"
    for name in ("forward", "backward"):
        if row.get(f"{name}_images_needed", 1) > 1:
            yield f"{name}: without ridge {row[f'{name}_images_needed']} training images are needed"
