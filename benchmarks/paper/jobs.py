"""A job -> its file: what is there already, what must be done, and doing it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from lmk.benchmarks.machine import machine
from lmk.benchmarks.paper.experiments import DataSet
from lmk.benchmarks.paper.plan import CoreJob, EvaluationJob, PackJob, PaperJob
from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header
from lmk.train.adapting import adapt, has_begun
from lmk.train.config import RunConfig, for_device
from lmk.train.core import train_core
from lmk.train.datasets import CropMode, DecodedSet, load_decoded
from lmk.train.device import pick_device
from lmk.train.judge import evaluate
from lmk.train.network import WIDTHS, load_pack

DONE, RESUME, START = "done", "to be gone on with", "to do"
# What says where and how a run was made, and not what it is. The core is known by its sha256.
_FREE = {"output", "resume", "device", "threads", "minutes", "core", "vgg"}
_FREE |= {"preview_every", "report"}
_OF_W = {"whiten", "projection_rate", "scope", "train_plain_convs"}  # nothing to methods without W
_FREE_OF_EVALUATION = {"device", "threads", "batch"}


def state(job: PaperJob) -> str:
    """DONE, RESUME or START, by what lies on the disk.

    Raises UserError, naming the difference, for a file of another configuration.
    """
    if isinstance(job, CoreJob):
        return _core_state(job)
    if isinstance(job, PackJob):
        return _pack_state(job)
    return DONE if read_evaluation(job) is not None else START


def run(job: PaperJob, force: bool = False) -> None:
    """Make the file of `job`, or go on with it; `force`: anew, over whatever is there.

    Raises UserError as the stages do; KeyboardInterrupt after Ctrl-C, with everything saved.
    """
    if isinstance(job, EvaluationJob):
        model, header = load_pack(job.pack.config.output, job.pack.config.core)
        size, crop, fit = model.config.input_size, job.pack.crop, job.category.fit
        data = decoded(job.category.test, size, crop)
        fit_on, seed = decoded(fit, size, crop) if fit else None, header["config"]["seed"]
        report = evaluate(model, data, job.config, seed, fit_on=fit_on, crop=crop)
        report |= {**_about(job, header), "machine": machine()}
        write_bytes(job.output, json.dumps(report, indent=1).encode())
        return
    resume = not force and state(job) == RESUME
    if isinstance(job, CoreJob):
        assert job.data is not None, "a core that is given is never trained"
        train_core(replace(job.config, resume=resume), decoded(job.data, _size(job), "annotation"))
    else:
        config = replace(job.config, input_size=_size(job), resume=resume)
        adapt(config, decoded(job.data, _size(job), job.crop))


@functools.cache
def decoded(data: DataSet, input_size: int, crop: CropMode) -> DecodedSet:
    """The images of `data`, kept open: several jobs look at the same."""
    return load_decoded(data.spec, data.layout, input_size, crop)


def _size(job: CoreJob | PackJob) -> int:
    """Side of the crops in pixels: a pack has that of its core."""
    if isinstance(job, CoreJob):
        return job.config.input_size
    assert job.config.core is not None
    return read_header(job.config.core)["network"]["input_size"]


def _core_state(job: CoreJob) -> str:
    if job.data is None:
        header = read_header(job.path())  # raises UserError if it is not there
        if header["kind"] != "core":
            raise UserError(f"--core: got {job.path()}, a {header['kind']}, expected a core")
        return DONE
    found = _run_state(job.config, {})
    if found == DONE:
        for epoch in job.config.keep:
            if not job.path(epoch).exists():
                raise UserError(
                    f"{job.path(epoch)}: missing, expected the core after {epoch} epochs beside "
                    "the finished one; put it back or train the core again with --force"
                )
    return found


def _pack_state(job: PackJob) -> str:
    core = job.config.core
    assert core is not None
    if not core.exists():
        if job.core.data is None:
            raise UserError(f"--core: {core} is missing, expected the core after an early epoch")
        return START  # the core comes first, and then this is asked again
    header = read_header(core)
    network = header["network"]
    width = next((name for name, w in WIDTHS.items() if w == network["width"]), job.config.width)
    config = replace(job.config, input_size=network["input_size"], width=width)
    return _run_state(config, {"core_sha256": header["sha256"]})


def _run_state(config: RunConfig, wanted: Mapping[str, Any]) -> str:
    """Whether the run of `config` is finished, interrupted or not begun; UserError if another."""
    path = config.output
    has_state = has_begun(path)
    if not path.exists():
        return RESUME if has_state else START
    header = read_header(path)
    config = for_device(config, pick_device(config.device).type)
    values = asdict(config)
    free = _FREE if "projection" in values.get("method", "") else _FREE | _OF_W
    now = _plain({**{name: v for name, v in values.items() if name not in free}, **wanted})
    defaults = {f.name: f.default for f in fields(config)}  # of what is newer than the file
    before = {**defaults, **header["config"], **{name: header.get(name) for name in wanted}}
    for name, value in now.items():
        if _plain(before)[name] != value:
            raise UserError(
                f"{path}: was made with {name} {before[name]}, expected {value}; give the options "
                "it was made with, another --folder, or --force to make it anew"
            )
    if header["finished"]:
        return DONE
    return RESUME if has_state else START


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As it is in JSON, where a tuple is a list and a path its text."""
    return json.loads(json.dumps(values, default=str))


def read_evaluation(job: EvaluationJob) -> dict[str, Any] | None:
    """The report in `job.output`, None if it is missing or of another pack or configuration."""
    pack = job.pack.config.output
    if not job.output.exists() or not pack.exists():
        return None
    try:
        report = json.loads(job.output.read_text())
    except ValueError:
        return None  # cut short by a full disk of another program: cheap to make again
    about = _about(job, read_header(pack))
    return report if all(report.get(name) == value for name, value in about.items()) else None


def _about(job: EvaluationJob, header: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation depends on."""
    config = {n: v for n, v in asdict(job.config).items() if n not in _FREE_OF_EVALUATION}
    return {
        "pack": job.pack.config.output.name,
        "pack_sha256": header["sha256"],
        "test": asdict(job.category.test),
        "fit": job.category.fit and asdict(job.category.fit),
        "crop": job.pack.crop,
        "config": _plain(config),
    }
