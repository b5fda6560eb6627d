"""Landmarks on any object, without labels: `lmk.load("cats")(image)` finds them."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # type checkers know it by its name; to import it would take time
if TYPE_CHECKING:
    from typing import Any

    from lmk.export.commands import discover as discover
    from lmk.export.commands import export as export
    from lmk.export.discovery import Discovered as Discovered
    from lmk.runtime.detection import Detection as Detection
    from lmk.runtime.detection import Found as Found
    from lmk.runtime.detection import Frame as Frame
    from lmk.runtime.errors import UserError as UserError
    from lmk.runtime.landmarker import Landmarker as Landmarker
    from lmk.runtime.landmarker import Landmarks as Landmarks
    from lmk.runtime.landmarker import load as load
    from lmk.train.commands import adapt as adapt

__version__ = "0.1.0"

# ONNX Runtime reads it once, when it starts, here and in every process that we start: without, it
# looks up a host that it reports to and writes a number of this machine into the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Each is imported when it is first asked for, so that `import lmk` costs nothing.
_WHERE = {
    "Discovered": "lmk.export.discovery",
    "Detection": "lmk.runtime.detection",
    "Found": "lmk.runtime.detection",
    "Frame": "lmk.runtime.detection",
    "Landmarks": "lmk.runtime.landmarker",
    "Landmarker": "lmk.runtime.landmarker",
    "UserError": "lmk.runtime.errors",
    "adapt": "lmk.train.commands",
    "discover": "lmk.export.commands",
    "load": "lmk.runtime.landmarker",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "export":  # a room, and what it does when it is called
        return import_module("lmk.export")
    if name not in _WHERE:
        raise AttributeError(f"module 'lmk' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, "export"})
