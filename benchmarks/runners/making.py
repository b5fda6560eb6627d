"""Seconds to make a model: export, engines cold and from the cache, another category."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.benchmarks.runners.subject import Subject
from lmk.benchmarks.timing import seconds_of
from lmk.runtime.errors import UserError
from lmk.runtime.model import compose_file, read_header, workspace
from lmk.runtime.runners import OrtRunner, TrtRunner, swap

_LONG_S = 10.0


def switch(subject: Subject, crop: NDArray[np.uint8], threads: int) -> dict[str, Any]:
    """Seconds from the weights of a category to its first result, crop (1,S,S,3), on the CPU.

    `template_s`: by composing its model, which needs no PyTorch, and checking it by its probe;
    `rebuild_s`: by exporting it, which verifies it at length; `times`: their ratio. Medians of five
    and of three, unless one takes ten seconds or more. Raises UserError for a pack without a
    template.
    """
    pack = subject.pack
    if pack is None:
        raise UserError("got no pack of the model, expected one to compose; name the pack")
    path = subject.folder / "switched.onnx"

    def first_result(make: Callable[[], object]) -> None:
        make()
        with OrtRunner(path, threads=threads) as runner:
            runner(crop)

    def rebuild() -> None:
        from lmk.export.graph import export_pack

        export_pack(pack, subject.core, path, force=True)

    template = _median(lambda: first_result(lambda: compose_file(pack, path)), 5)
    again = _median(lambda: first_result(rebuild), 3)
    return {
        "template_s": template,
        "rebuild_s": again,
        "times": round(again / max(template, 1e-3), 1),
    }


def refit(subject: Subject, engine: Path, crop: NDArray[np.uint8], cold_s: float) -> dict[str, Any]:
    """Seconds to put another category of the same core into an engine, to its first result.

    `rebuild_s` is what building the engine takes. Raises UserError where there is no other pack of
    the core, and as `swap`.
    """
    other = _other_pack(subject)
    with TrtRunner(engine) as runner:

        def first_result() -> None:
            swap(runner, other)
            runner(crop)

        seconds = round(seconds_of(first_result), 3)
    return {"refit_s": seconds, "rebuild_s": cold_s, "times": round(cold_s / max(seconds, 1e-3), 1)}


def _other_pack(subject: Subject) -> Path:
    for name in sorted(workspace.pack_names()):
        path = workspace.pack_named(name)
        header = read_header(path) if path else {}
        if (
            path
            and header.get("core_sha256") == subject.contract.core_sha256
            and header["sha256"] != subject.contract.pack_sha256
            and header["network"]["num_landmarks"] == subject.contract.num_landmarks
        ):
            return path
    raise UserError("got no other pack of its core, expected one in runs/ or shipped")


def _median(call: Callable[[], object], times: int) -> float:
    """Seconds of `call`, the median of `times`; of one where that is long enough."""
    seconds = [seconds_of(call)]
    if seconds[0] < _LONG_S:
        seconds += [seconds_of(call) for _ in range(times - 1)]
    return round(float(np.median(seconds)), 3)
