"""The method projection+finetune: a projection is learnt first, and what it learnt is handed on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lmk.runtime.model import read_header
from lmk.train import distributed
from lmk.train.config import AdaptConfig
from lmk.train.loop import STATE_NAME
from lmk.train.network import checkpoint, load_pack, plain_state


def projection_phase(config: AdaptConfig) -> AdaptConfig:
    """The first half of the budget, as a run of its own inside the folder of the whole one."""
    output = _first(config.output)
    return replace(
        config,
        method="projection",
        report=False,
        output=output,
        steps=config.steps and max(1, config.steps // 2),
        minutes=config.minutes and config.minutes / 2,
        resume=config.resume and _has_state(output),
    )


def finetune_phase(config: AdaptConfig) -> AdaptConfig:
    """The second half of the budget; it resumes only if it has begun."""
    return replace(
        config,
        steps=config.steps and config.steps - config.steps // 2,
        minutes=config.minutes and config.minutes / 2,
        resume=config.resume and _has_state(config.output),
    )


def is_finished(pack: Path) -> bool:
    """Whether the run that wrote `pack` came to its end."""
    finished = pack.exists() and bool(read_header(pack).get("finished"))
    return bool(distributed.agreed([finished])[0])


def has_begun(output: Path) -> bool:
    """Whether there is a run to go on with, in its first phase or its only one."""
    return _has_state(output) or _has_state(_first(output))


def handed_on(pack: Path, core: Path | None) -> dict[str, dict[str, Tensor]]:
    """Detector, its W·theta as plain weights, and generator of a finished projection."""
    tensors, _ = checkpoint.load(pack.with_suffix("") / STATE_NAME, "run")
    prefix = "model.generator."
    painter = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {"detector": plain_state(load_pack(pack, core)[0]), "generator": painter}


def _first(output: Path) -> Path:
    return output.with_suffix("") / "projection.safetensors"


def _has_state(output: Path) -> bool:
    there = (output.with_suffix("") / STATE_NAME).exists()
    return bool(distributed.agreed([there])[0])  # while the leader may be about to write it
