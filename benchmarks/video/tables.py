"""Results of the end-to-end benchmark -> tables on the terminal, and the figures of claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from lmk.benchmarks.claims import Claim, check_name
from lmk.benchmarks.machine import busy_warnings
from lmk.benchmarks.plots import screen_table

# What a row is called in claims and JSON -> what it says on the terminal.
TITLES = {
    "csv": "csv",
    "plain-csv": "plain csv",
    "overlay": "csv+overlay",
    "plain-overlay": "plain csv+overlay",
    "same-runner": "plain csv, our runner",
    "model": "model alone",
    "decode": "decode alone",
}
_EVERY = ("frames_per_second", "slowest", "fastest", "cpu_seconds")
_OURS = ("speed_up", "share_of_model")
METRICS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(TITLES, _EVERY),
    "csv": (*_EVERY, *_OURS, "speed_up_same_runner"),
    "overlay": (*_EVERY, *_OURS),
    "apart": ("median_px", "p99_px"),
}


def check_claims(claims: Iterable[Claim], num_videos: int) -> None:
    """Raise UserError for a claim that names what will not be measured."""
    every = {metric for metrics in METRICS.values() for metric in metrics}
    for claim in claims:
        for name in claim.names:
            check_name(claim, name, METRICS, range(1, num_videos + 1), "video", every)


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """`ROW.METRIC@VIDEO`, the videos counted from 1, and `ROW.METRIC` of the first."""
    found: dict[str, float] = {}
    for number, video in enumerate(result["videos"], start=1):
        for name, row in {**video["rows"], "apart": video["apart"]}.items():
            for metric in METRICS[name]:
                if row.get(metric) is not None:
                    found[f"{name}.{metric}@{number}"] = row[metric]
                    if number == 1:
                        found[f"{name}.{metric}"] = row[metric]
    return found


def reasons(result: Mapping[str, Any]) -> dict[str, str]:
    """Why there is no figure of some names, for `Claim.judge`."""
    same = f"our runner, {result['runner']}, is that of the plain loop"
    none = "no landmark had a score to rely on"
    found = {"same-runner": same, "csv.speed_up_same_runner": same, "apart": none}
    for number in range(1, len(result["videos"]) + 1):
        found[f"csv.speed_up_same_runner@{number}"] = same
    return found


def print_videos(result: Mapping[str, Any], screen: Console) -> None:
    """A table for each video, and how far the plain loop's points are from ours."""
    for video in result["videos"]:
        screen.print(_table(video, result["rounds"]))
        how = video["apart"]
        if how["confident"]:
            screen.print(
                f"the plain loop's points are {how['median_px']:g} px from ours (median; 99 %: "
                f"{how['p99_px']:g} px), of {how['confident']} confident of {how['landmarks']}"
            )
        else:
            screen.print(f"none of {how['landmarks']} points is confident: they are not compared")
    threads = result["threads"]
    screen.print(
        f"ours: {result['runner']}; plain loop: {result['plain_runner']}; "
        f"{threads} {'thread' if threads == 1 else 'threads'}"
    )
    for line in busy_warnings(result["machine"]):
        screen.print(line)


def _table(video: Mapping[str, Any], rounds: int) -> Table:
    heads = ["frames/s", "range", "x plain", "of model", "CPU s"]
    heads += ["busy: decode", "crop", "run", "write"]
    height, width = video["size"]
    title = f"{video['file']}: {video['frames']} frames of {width}×{height}, rounds: {rounds}"
    table = screen_table(title, "", heads)
    for name, row in video["rows"].items():
        rates = [f"{row['frames_per_second']:.1f}", f"{row['slowest']:.0f}-{row['fastest']:.0f}"]
        ratios = [f"{row[metric]:.2f}" if metric in row else "" for metric in _OURS]
        busy = [f"{value:.1f}" for value in row.get("busy_seconds", {}).values()]
        table.add_row(TITLES[name], *rates, *ratios, f"{row['cpu_seconds']:.1f}", *busy)
    return table
