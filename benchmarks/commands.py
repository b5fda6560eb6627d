"""Commands that run whole chains: demo, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lmk.benchmarks.plan import ALL, Options
from lmk.benchmarks.tables import TABLES
from lmk.runtime.commands import FILE_PATH
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
@config_options(Options)
def reproduce_command(table: str, force: bool, dry_run: bool, **o: Any) -> None:
    """Run an experiment of the paper, or go on with it, and set it beside the paper's figures."""
    from lmk.benchmarks.reproduce import describe, reproduce

    options = make_config(Options, o)
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
