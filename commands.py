"""The commands of every room in one: parse, one library call, print; what is heavy waits."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import click

from lmk import __version__
from lmk.runtime.errors import without_passwords
from lmk.runtime.signals import ends_in_order, nothing_begun
from lmk.runtime.terminal import escape_output, explain

# The module of each is imported when it is first asked for: no command waits for another's.
_WHERE = {
    "discover": "lmk.export.commands",
    "train-core": "lmk.train.commands",
    "adapt": "lmk.train.commands",
    "distill": "lmk.train.commands",
    "evaluate": "lmk.train.commands",
    "report": "lmk.train.commands",
    "name": "lmk.export.commands",
    "prune": "lmk.export.commands",
    "export": "lmk.export.commands",
    "detect": "lmk.runtime.detect.command",
    "find": "lmk.runtime.find.command",
    "studio": "lmk.studio.commands",
    "info": "lmk.runtime.commands",
    "doctor": "lmk.runtime.commands",
    "demo": "lmk.benchmarks.commands",
    "reproduce": "lmk.benchmarks.commands",
    "bench": "lmk.benchmarks.commands",
    "data": "lmk.train.datasets.commands",
}


class _Lazy(click.Group):
    """A group whose commands come from `_WHERE`, each as NAME_command of its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_WHERE, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _WHERE and cmd_name not in self.commands:
            with nothing_begun():
                module = import_module(_WHERE[cmd_name])
            self.add_command(getattr(module, f"{cmd_name.replace('-', '_')}_command"))
        return super().get_command(ctx, cmd_name)


class _Told(logging.Formatter):
    """Lines of the log, without the passwords of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))


@click.group(
    cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="lmk")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def cli(debug: bool) -> None:
    """Landmarks on any object, without labels: train, adapt, export, detect."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Told("lmk: %(message)s"))


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
            if line is None and came:  # amid an import of compiled code a signal comes out as this
                line, code = explain(KeyboardInterrupt())
            if line is None or "--debug" in arguments:
                click.echo(without_passwords(traceback.format_exc()), err=True, nl=False)
            line = line or f"internal error, please report it: {error!r}"
            click.echo(f"lmk: {without_passwords(line)}", err=True)
            code = 128 + came[0] if came and code == 130 else code
    sys.exit(code)
