"""Config dataclasses <-> command-line options."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal

import click

from lmk.train.config import NAMED

Command = Callable[..., Any]


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
            if kind is bool:
                flag += f"/--no-{flag[2:]}"
            elif typing.get_origin(kind) is Literal:
                kind = click.Choice(typing.get_args(kind))
            elif kind is Path:
                kind = click.Path(path_type=Path)
            elif several:
                kind, text = typing.get_args(kind)[0], text + "; may be repeated"
            command = click.option(
                flag, item.name, type=kind, default=None, multiple=several, help=text
            )(command)
        return command

    return add


def make_config(config: type, values: dict[str, Any], **more: Any) -> Any:
    """A config from the options that were given over `more` over the defaults."""
    names = {item.name for item in fields(config)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    return config(**{**more, **given})
