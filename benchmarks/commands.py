"""Commands that run whole chains: demo."""

from __future__ import annotations

from pathlib import Path

import click

FILE_PATH = click.Path(path_type=Path)


@click.command("demo")
@click.option("--output", type=FILE_PATH, default=Path("runs/demo"), show_default=True)
@click.option("--minutes", type=float, default=4.0, show_default=True, help="For all training.")
@click.option("--force", is_flag=True, help="Overwrite an earlier demo.")
def demo_command(output: Path, minutes: float, force: bool) -> None:
    """Run the whole chain on built-in, drawn categories."""
    from lmk.benchmarks.demo import demo

    demo(output, minutes, force)
