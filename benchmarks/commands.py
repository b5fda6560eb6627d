"""Commands that run whole chains, and the one that measures: demo, reproduce, bench."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lmk.benchmarks.claims import Claim
from lmk.benchmarks.paper.experiments import TABLES
from lmk.benchmarks.paper.plan import ALL, ReproduceOptions
from lmk.benchmarks.runners.names import TITLES, BenchOptions
from lmk.runtime.errors import UserError, write_error
from lmk.runtime.files import write_bytes
from lmk.runtime.runners import AUTO, RUNNERS
from lmk.runtime.terminal import FILE_PATH, CommaList, output
from lmk.train.options import config_options, make_config


@click.command("demo")
@click.option("--output", type=FILE_PATH, default=Path("runs/demo"), show_default=True)
@click.option("--minutes", type=float, default=4.0, show_default=True, help="For all training.")
@click.option("--force", is_flag=True, help="Overwrite an earlier demo.")
def demo_command(output: Path, minutes: float, force: bool) -> None:
    """Run the whole chain on built-in, drawn categories."""
    from lmk.benchmarks.demo import demo

    demo(output, minutes, force)


@click.command("reproduce")
@click.argument("table", type=click.Choice([*TABLES, ALL]))
@click.option("--force", is_flag=True, help="Make everything anew.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@config_options(ReproduceOptions)
def reproduce_command(table: str, force: bool, dry_run: bool, **o: Any) -> None:
    """Run an experiment of the paper, or go on with it, and set it beside the paper's figures."""
    from lmk.benchmarks.paper.reproduction import describe, reproduce

    options = make_config(ReproduceOptions, o)
    if dry_run:
        for line in describe(table, options):
            click.echo(line)
        return
    outcome = reproduce(table, options, force)
    click.echo(outcome.page)
    if outcome.left:
        click.echo(f"{len(outcome.left)} jobs are left; call again to go on", err=True)
    if outcome.failed:
        for name, reason in outcome.failed.items():
            if name not in outcome.blocked:
                click.echo(f"failed: {name}: {reason}", err=True)
        if outcome.blocked:
            click.echo(f"{len(outcome.blocked)} jobs that need those were not begun", err=True)
        click.get_current_context().exit(1)


@click.command("bench")
@click.argument("model", type=FILE_PATH)
@click.option(
    "--against",
    type=CommaList(),
    default=(),
    help=f"Runners: {', '.join(TITLES)}, also with a precision: "
    f"eager-bf16, trt-fp16; {AUTO}: what `lmk detect` takes; with --video one.  [default: all "
    "that this machine has]",
)
@click.option("--batch", "batches", type=CommaList(int), default="1,8,32", show_default=True)
@click.option("--data", help="Images of the category; default: synthetic ones.")
@click.option("--repeats", type=int, default=200, show_default=True, help="Calls at each batch.")
@click.option(
    "--seconds", type=float, default=60.0, show_default=True, help="At most, for each batch."
)
@click.option("--starts", type=int, default=3, show_default=True, help="Processes a runner.")
@click.option("--threads", type=int, help="CPU threads of every runner; default: all cores.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option("--core", type=FILE_PATH, help="The pack's core, if it is not beside it.")
@click.option(
    "--student",
    type=FILE_PATH,
    help="A pack that was distilled from MODEL: rows for it too, student-ort-cpu and so on.",
)
@click.option("--json", "file", type=FILE_PATH, help="Write the results, as one line of JSON.")
@click.option(
    "--plot", type=FILE_PATH, help="Draw latency and throughput over batch, speed over drift."
)
@click.option(
    "--video",
    "videos",
    multiple=True,
    help="Measure from this file to CSV and overlay instead, beside a plain loop; also long:60.",
)
@click.option(
    "--roi", default="center", show_default=True, help="With --video: the one box of each frame."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="With --video: how often each contestant has its turn.",
)
@click.option(
    "--assert",
    "claims",
    multiple=True,
    metavar="CLAIM",
    help="Exit with 1 unless it holds: 'ort-cpu.p50@32 <= 0.8*eager.p50@32', or with --video "
    "'csv.speed_up >= 2'.",
)
def bench_command(
    model: Path,
    file: Path | None,
    plot: Path | None,
    claims: tuple[str, ...],
    videos: tuple[str, ...],
    roi: str,
    rounds: int,
    **o: Any,
) -> None:
    """Measure every runner of this machine on the same crops; MODEL is a category or a file."""
    # All that can be wrong is told before the minutes that measuring takes.
    _refuse_given(_NO_VIDEO if videos else _ONLY_VIDEO, bool(videos))
    understood = [Claim(text) for text in claims]
    for written in filter(None, (file, plot)):
        _check_file(written)
    if videos:
        return _bench_video(model, videos, roi, rounds, file, understood, o)
    from lmk.benchmarks.plots import check_plot, write_plot
    from lmk.benchmarks.runners.measured import bench, plan
    from lmk.benchmarks.runners.tables import check_claims, figures, print_result, reasons

    options = BenchOptions(**o)
    if plot:
        check_plot(plot)
    if understood:
        check_claims(understood, options, plan(options))
    result = bench(model, options)
    print_result(result, output())
    _write(file, result)
    if plot:
        write_plot(plot, result)
        click.echo(plot)
    _judge(understood, figures(result), reasons(result))


_NO_VIDEO = ("batches", "data", "repeats", "seconds", "starts", "device", "core", "student", "plot")
_ONLY_VIDEO = ("roi", "rounds")


def _refuse_given(names: Sequence[str], video: bool) -> None:
    """Raise a usage error for an option that was given and would be ignored."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names and source is not ParameterSource.DEFAULT:
            where = "no such option with --video" if video else "it with --video only"
            raise click.UsageError(f"{option.opts[0]}: got one, expected {where}; leave it out")


def _check_file(path: Path) -> None:
    """Raise UserError where a file cannot be written later; makes no folder before there is one."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file; add one")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise write_error(there, NotADirectoryError(errno.ENOTDIR, "Not a directory"))
    if not os.access(there, os.W_OK):
        raise write_error(path, PermissionError(errno.EACCES, "Permission denied"))


def _write(file: Path | None, result: Mapping[str, Any]) -> None:
    if file:
        write_bytes(file, json.dumps(result).encode() + b"\n")
        click.echo(file)


def _judge(
    claims: Sequence[Claim], figures: Mapping[str, float], reasons: Mapping[str, str]
) -> None:
    """Say what came of each claim; exit with 1 unless all hold."""
    verdicts = [claim.judge(figures, reasons) for claim in claims]
    for verdict in verdicts:
        click.echo(verdict)
    if not all(verdict.holds for verdict in verdicts):
        click.get_current_context().exit(1)


def _bench_video(
    model: Path,
    videos: tuple[str, ...],
    roi: str,
    rounds: int,
    file: Path | None,
    claims: Sequence[Claim],
    options: Mapping[str, Any],
) -> None:
    from lmk.benchmarks.video import bench_video, check_claims, figures, print_videos, reasons

    BenchOptions(threads=options["threads"])
    devices = {entry.name: entry.device for entry in RUNNERS if entry.suffix == ".onnx"}
    devices[AUTO] = AUTO
    runner = ",".join(options["against"]) or "ort-cpu"
    if runner not in devices:
        raise click.UsageError(f"--against: got {runner}, expected one of {', '.join(devices)}")
    check_claims(claims, len(videos))
    result = bench_video(model, videos, roi, rounds, options["threads"], devices[runner])
    print_videos(result, output())
    _write(file, result)
    _judge(claims, figures(result), reasons(result))
