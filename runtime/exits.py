"""Whatever ended a command -> what the user is told, and the exit code."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from lmk.runtime.errors import UserError
from lmk.runtime.files import write_error

_TRAIN_MODULES = ("torch", "torchvision", "onnx", "onnxscript", "tensorboard", "jinja2", "scipy")


def explain(error: BaseException) -> tuple[str | None, int]:
    """The one line for an error, None if it is a bug of ours, and the exit code."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 2
    if isinstance(error, click.Abort | KeyboardInterrupt):
        said = str(error) or str(error.__cause__ or "")  # click puts its Abort in the place of ours
        return said or "interrupted; what was finished is kept", 130
    if isinstance(error, ModuleNotFoundError) and error.name in _TRAIN_MODULES:
        cure = f"pip install {' '.join(_TRAIN_MODULES)}"
        return f"{error.name}: not installed, needed for training and export; {cure}", 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(write_error(Path(error.filename or "output"), error)), 2
    return None, 1
