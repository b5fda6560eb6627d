"""Pack -> fold -> graph -> verified ONNX file.

Called, `lmk.export("shoes")`, it makes that file: see `lmk.export.commands.export`.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from pathlib import Path
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """The room has the name of what it does, as a command and in Python: so it can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Path:
        return _export()(*arguments, **options)

    @property
    def __signature__(self) -> Signature:
        return signature(_export())


def _export() -> Callable[..., Path]:
    return import_module("lmk.export.commands").export


sys.modules[__name__].__class__ = _Room
