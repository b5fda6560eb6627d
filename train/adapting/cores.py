"""A category and several cores -> the core that suits it, found out by a short run from each."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header, workspace
from lmk.runtime.terminal import console
from lmk.train import distributed
from lmk.train.adapting.phases import has_begun, is_finished
from lmk.train.config import AdaptConfig, EvaluateConfig
from lmk.train.datasets import DecodedSet
from lmk.train.judge import COLLAPSED_SPREAD, REFERENCE, spread_over, views
from lmk.train.loop import STATE_NAME
from lmk.train.network import load_pack
from lmk.train.split import split_for_training

_TRIAL, _TRIALS = 0.1, 0.3  # share of the budget that a trial takes, and at most all of them
_JUDGED = 300  # held-out images, at most
_CHOICE = "core.json"

Adapt = Callable[[AdaptConfig, DecodedSet], Path]


def candidates() -> list[Path]:
    """The cores to choose from, the usual one first: those in `runs/` and those that ship.

    All have the input of the first: images are decoded once. Raises UserError if there is none.
    """
    usual, *rest = workspace.cores()
    size = _input_size(usual)
    return [usual, *(path for path in rest if _input_size(path) == size)]


def with_best_core(config: AdaptConfig, data: DecodedSet, adapt: Adapt) -> AdaptConfig:
    """`config` with the core that suits `data`, and with what the trials leave of the budget.

    `adapt` makes a short run from each candidate, in the folder `cores` of the run's. Kept is the
    one whose landmarks are the steadiest for how far they are apart: consistency on held-out
    images over spread, so no label is needed. A resume keeps to what was chosen. Raises UserError
    when that is not there any more.
    """
    cores, folder = candidates(), _folder(config.output)
    if len(cores) == 1:
        return replace(config, core=cores[0])
    trials = [_trial(config, core, folder, _share(len(cores))) for core in cores]
    resume = config.resume
    if not resume:
        if distributed.leads():
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
        distributed.wait()
    elif not any(has_begun(trial.output) for trial in trials):
        return replace(config, core=cores[0])  # nor has the run: it says so
    best = _chosen(folder, cores)
    if best is None:
        wobbles = [_tried(trial, data, adapt, resume) for trial in trials]
        best, resume = cores[int(np.argmin(wobbles))], False
        _choose(folder, best, wobbles, cores)
    else:
        resume = has_begun(config.output)
    return replace(after_trials(config), core=best, resume=resume)


def after_trials(config: AdaptConfig) -> AdaptConfig:
    """The same with what the trials of the cores leave of the budget."""
    count = len(candidates())
    return config if count == 1 else _part(config, 1 - _share(count) * count)


def is_under_way(output: Path) -> bool:
    """Whether there is a run to go on with, be it in the trials of its cores."""
    tried = any(_folder(output).rglob(STATE_NAME))
    return has_begun(output) or bool(distributed.agreed([tried])[0])


def _folder(output: Path) -> Path:
    """Where the trials for `output` are."""
    return output.with_suffix("") / "cores"


def _share(cores: int) -> float:
    """Of the budget, for the trial of each."""
    return min(_TRIAL, _TRIALS / cores)


def _part(config: AdaptConfig, share: float) -> AdaptConfig:
    """The same with a share of the budget."""
    return replace(
        config,
        steps=config.steps and max(1, round(config.steps * share)),
        minutes=config.minutes and config.minutes * share,
    )


def _trial(config: AdaptConfig, core: Path, folder: Path, share: float) -> AdaptConfig:
    output = folder / f"{core.stem}-{read_header(core)['sha256'][:8]}.safetensors"
    return replace(_part(config, share), core=core, output=output, report=False)


def _tried(trial: AdaptConfig, data: DecodedSet, adapt: Adapt, resume: bool) -> float:
    """Make the trial, or what is left of it; how unsteady its landmarks are."""
    resume = resume and has_begun(trial.output)
    if not (resume and is_finished(trial.output)):
        adapt(replace(trial, resume=resume), data)
    return distributed.agreed([_wobble(trial, data) if distributed.leads() else 0.0])[0]


def _wobble(trial: AdaptConfig, data: DecodedSet) -> float:
    """Consistency over spread on held-out images; infinite for landmarks that have collapsed."""
    model, header = load_pack(trial.output, trial.core)
    _, held_out = split_for_training(data.name, data.splits, trial.seed)
    judging = EvaluateConfig(rotation=header["config"]["rotation"], device=trial.device)
    seen = views(model, data, spread_over(held_out, _JUDGED), judging)
    found, scale = seen.found[0], REFERENCE / model.config.input_size
    spread = scale * float(np.sqrt(((found - found.mean(1, keepdims=True)) ** 2).sum(2).mean()))
    error = scale * float(np.nanmean(seen.errors[1]))
    return error / spread if spread >= COLLAPSED_SPREAD else math.inf


def _choose(folder: Path, best: Path, wobbles: Sequence[float], cores: Sequence[Path]) -> None:
    """Say and keep which core it is."""
    told = [
        f"{core.parent.name}/{core.stem} {w:.1%}" for core, w in zip(cores, wobbles, strict=True)
    ]
    console().print(f"core: {best}; unsteadiness over spread after short runs: {', '.join(told)}")
    if distributed.leads():
        kept = {"sha256": read_header(best)["sha256"], "tried": told}
        write_bytes(folder / _CHOICE, json.dumps(kept).encode())


def _chosen(folder: Path, cores: Sequence[Path]) -> Path | None:
    """What was chosen before, if it was."""
    path = folder / _CHOICE
    if not path.exists():
        return None
    sha256 = json.loads(path.read_text())["sha256"]
    for core in cores:
        if read_header(core)["sha256"] == sha256:
            return core
    raise UserError(
        f"--resume: the core with sha256 {sha256}, which was chosen for {folder.parent.name}, is "
        "not there any more; put it back, or start anew with --force"
    )


def _input_size(core: Path) -> int:
    return int(read_header(core)["network"]["input_size"])
