"""The commands of every room in one: parse, one library call, print; what is heavy waits inside."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import NoReturn

import click

from lmk import __version__
from lmk.benchmarks.commands import bench_command, demo_command, reproduce_command
from lmk.export.commands import discover_command, export_command, name_command, prune_command
from lmk.runtime.commands import doctor_command, info_command
from lmk.runtime.detect.command import detect_command
from lmk.runtime.errors import without_passwords
from lmk.runtime.find.command import find_command
from lmk.runtime.signals import ends_in_order
from lmk.runtime.terminal import escape_output, explain
from lmk.studio.commands import studio_command
from lmk.train.commands import (
    adapt_command,
    distill_command,
    evaluate_command,
    report_command,
    train_core_command,
)
from lmk.train.datasets.commands import data_group


class _Told(logging.Formatter):
    """Lines of the log, without the passwords of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lmk")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def cli(debug: bool) -> None:
    """Landmarks on any object, without labels: train, adapt, export, detect."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Told("lmk: %(message)s"))


for _command in (
    discover_command,
    train_core_command,
    adapt_command,
    distill_command,
    evaluate_command,
    report_command,
    name_command,
    prune_command,
    export_command,
    detect_command,
    find_command,
    studio_command,
    info_command,
    doctor_command,
    demo_command,
    reproduce_command,
    bench_command,
    data_group,
):
    cli.add_command(_command)


def run(arguments: list[str]) -> NoReturn:
    """Run a command and exit; user errors are one line on standard error and exit code 2.

    SIGTERM and SIGHUP end it in order, as Ctrl-C does.
    """
    with ends_in_order() as came:
        try:
            escape_output()
            code = cli.main(arguments, prog_name="lmk", standalone_mode=False) or 0
        except BrokenPipeError:  # `lmk … | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except (Exception, KeyboardInterrupt) as error:
            line, code = explain(error)
            if line is None or "--debug" in arguments:
                click.echo(without_passwords(traceback.format_exc()), err=True, nl=False)
            line = line or f"internal error, please report it: {error!r}"
            click.echo(f"lmk: {without_passwords(line)}", err=True)
            code = 128 + came[0] if came and code == 130 else code
    sys.exit(code)
