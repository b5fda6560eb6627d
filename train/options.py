"""Config dataclasses <-> command-line options <-> keywords of the same call in Python."""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal

import click

from lmk.runtime.errors import UserError
from lmk.runtime.model import check_kind, read_header, workspace
from lmk.runtime.terminal import FILE_PATH
from lmk.train.config import AUTO, BY_DEVICE, NAMED, AdaptConfig

_DEVICES = (("", "cpu"), ("with CUDA ", "cuda"))  # in the words of a help text

_ALSO = {"minutes": ("--time-budget",)}  # other names of an option
_DURATIONS = ("minutes", "time_budget")  # fields that a time is given for
_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0}

Command = Callable[..., Any]


class Sectioned(click.Command):
    """A command whose options are told in sections; those that no section names come last."""

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[str]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Command."""
        records = {option.name: option.get_help_record(ctx) for option in self.get_params(ctx)}
        named = {name for names in self.sections.values() for name in names}
        rest = [name for name in records if name not in named]
        for title, names in {**self.sections, "More": rest}.items():
            rows = [row for name in names if (row := records.get(name))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Duration(click.ParamType):
    """A time with its unit (90s, 20m, 1.5h) -> minutes; a bare number is minutes already."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Minutes, which may still be too few; a usage error for what is no time."""
        text = str(value).strip()
        unit = text[-1:] if text[-1:] in _MINUTES else ""
        try:
            minutes = float(text.removesuffix(unit)) * _MINUTES[unit or "m"]
        except ValueError:
            minutes = math.nan
        if not math.isfinite(minutes):
            self.fail(
                f"got '{value}', expected a time such as 90s, 20m or 1.5h, or a number of minutes",
                param,
                ctx,
            )
        return minutes


def _shown(name: str, defaults: Mapping[str, Any]) -> Any:
    """A default as it would be typed; None: there is none."""
    value = defaults.get(name)
    return f"{value:g}m" if name in _DURATIONS and value is not None else value


def config_options(config: type) -> Callable[[Command], Command]:
    """One click option per field of a config dataclass; unset ones are not passed on."""
    hints = typing.get_type_hints(config)

    def add(command: Command) -> Command:
        for item in reversed(fields(config)):
            kind = hints[item.name]
            if typing.get_origin(kind) in (UnionType, typing.Union):
                kind = next(arg for arg in typing.get_args(kind) if arg is not NoneType)
            flag = "--" + item.name.replace("_", "-")
            text = item.metadata.get("help", "")
            several = typing.get_origin(kind) is tuple
            if item.default not in (None, MISSING, False, NAMED, ()):
                text += f"  [default: {item.default}]"
            given = [
                (word, _shown(item.name, BY_DEVICE.get(config, {}).get(device, {})))
                for word, device in _DEVICES
            ]
            if words := [f"{word}{value}" for word, value in given if value is not None]:
                is_one = len({value for _, value in given}) == 1
                text += f"  [default: {', '.join(words[: 1 if is_one else None])}]"
            if kind is bool:
                flag += f"/--no-{flag[2:]}"
            elif typing.get_origin(kind) is Literal:
                kind = click.Choice(typing.get_args(kind))
            elif kind is Path:
                kind = FILE_PATH
            elif item.name in _DURATIONS:
                kind = Duration()
            elif several:
                kind, text = typing.get_args(kind)[0], text + "; may be repeated"
            flags = (flag, *_ALSO.get(item.name, ()))
            command = click.option(
                *flags, item.name, type=kind, default=None, multiple=several, help=text
            )(command)
        return command

    return add


def make_config(config: type, values: dict[str, Any], **more: Any) -> Any:
    """A config from the options that were given over `more` over the defaults."""
    names = {item.name for item in fields(config)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    return config(**{**more, **given})


def read_options(
    command: click.Command,
    given: Mapping[str, Any],
    arguments: Sequence[str] = (),
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """All options of a command as it gets them, from those `given` in Python; None is not given.

    arguments: what stands alone on its command line; without: options that Python does not have.
    Raises TypeError for an option that it does not have and UserError for a value that it does not
    take.
    """
    names = [p.name for p in command.params if p.name and p.name not in without]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1) or [", ".join(names)]
            raise TypeError(f"{command.name}: got an option '{name}', expected {near[0]}")
    values = {name: value for name, value in given.items() if value is not None}
    try:
        line = ["--", *arguments]
        return command.make_context(command.name, line, default_map=values).params
    except click.UsageError as error:
        raise UserError(f"{command.name}: {error.format_message()}") from None


def sized_as_core(config: AdaptConfig) -> AdaptConfig:
    """The same with the input of its core, or of the first of those that it may get."""
    if config.core is None:
        return config
    core = workspace.cores()[0] if config.core == AUTO else config.core
    header = read_header(core)
    check_kind(core, header, "core")
    return replace(config, input_size=header["network"]["input_size"])
