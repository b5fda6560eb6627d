"""What an engine is built for: the choices, and the command-line options made from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from lmk.runtime.errors import UserError
from lmk.runtime.model import Library
from lmk.runtime.terminal import CommaList

LIBRARIES: dict[str, Library] = {"trt": "tensorrt", "rtx": "tensorrt_rtx"}  # by `--engine`
BATCHES = (1, 8, 64)
LEVELS = (0, 5)  # TensorRT's own bounds


@dataclass(frozen=True)
class EngineOptions:
    """How to build; raises UserError for what no machine can do."""

    library: Library
    batches: tuple[int, ...] = BATCHES  # crops a run; other numbers are filled up to one of these
    targets: tuple[str, ...] = ()  # compute capabilities ("8.6"); none: 8.0 and newer
    level: int = 3  # builder optimisation level: the higher, the more kernels are tried
    workspace_mib: int | None = None  # scratch memory that a layer may ask for; None: no limit
    refittable: bool | None = None  # to take other weights later; None: where there is a GPU

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UserError(f"batches: got {self.batches}, expected numbers from 1 on; leave 0 out")
        low, high = LEVELS
        if not low <= self.level <= high:
            raise UserError(f"level: got {self.level}, expected {low} to {high}; give another one")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UserError(
                f"workspace: got {self.workspace_mib} MiB, expected 1 or more; leave it out for "
                "no limit"
            )


def _capability(text: str) -> str:
    """`SM86`, NVIDIA's other way to write it, -> `8.6`; anything else as it is."""
    match = re.fullmatch(r"sm_?(\d+)(\d)", text, re.IGNORECASE)
    return f"{match[1]}.{match[2]}" if match else text


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option per field of `EngineOptions`; those that are not given are None."""
    for option in (
        click.option(
            "--refit/--no-refit",
            "refittable",
            default=None,
            help="Engine: take the weights of other packs later. Needs a GPU.  [default: if any]",
        ),
        click.option(
            "--workspace",
            "workspace_mib",
            type=int,
            help="Engine: MiB of scratch memory a layer may use.  [default: no limit]",
        ),
        click.option(
            "--level", type=int, help="Engine: effort of the builder, 0 to 5.  [default: 3]"
        ),
        click.option(
            "--targets",
            type=CommaList(_capability, "capabilities"),
            help="Engine rtx: compute capabilities: 7.5,8.9 or SM75,SM89.  [default: 8.0 up]",
        ),
        click.option(
            "--batches",
            type=CommaList(int, "sizes"),
            help=f"Engine: crops a run.  [default: {','.join(map(str, BATCHES))}]",
        ),
    ):
        command = option(command)
    return command


def make_options(engine: str, values: dict[str, Any]) -> EngineOptions | None:
    """The options of `--engine` from the flags that were given; None for onnx.

    Raises UserError for flags that onnx has no use for.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if engine in LIBRARIES:
        return EngineOptions(LIBRARIES[engine], **given)
    if given:
        raise UserError(
            f"{', '.join(given)}: got an option of engines, expected none for --engine {engine}; "
            f"leave it out or give --engine {' or '.join(LIBRARIES)}"
        )
    return None
