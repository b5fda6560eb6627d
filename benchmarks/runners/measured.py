"""Model -> every runner of this machine on the same crops: speed, drift, memory, first result."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from lmk.benchmarks.machine import cores, machine
from lmk.benchmarks.runners import making, process, roofline
from lmk.benchmarks.runners.names import STUDENT, BenchOptions, check_device, is_pytorch
from lmk.benchmarks.runners.run import BASE, BenchRun, find_crops, planned
from lmk.benchmarks.runners.subject import open_subject
from lmk.benchmarks.runners.torch_runner import compile_into
from lmk.benchmarks.timing import Seconds, latency, speed_up
from lmk.runtime.runners import runner_packages
from lmk.runtime.terminal import console
from lmk.train.device import pick_device

Costs = Mapping[int, roofline.Cost]  # by batch


def bench(model: Path, options: BenchOptions) -> dict[str, Any]:
    """Measure the runners of `model`, a category, a pack, an ONNX file or an engine.

    The result is ready for JSON. Of each of `runners`: `engine`, `precision`, `device`; under
    `batches` what `timing.latency` gives, `speed_up` on eager fp32, and `roofline`, the share
    of what the machine could do; `drift_…` from eager fp32 in crop pixels; what
    `process.start` gives. `making`: seconds to make models. `left_out`: what is not measured,
    and why. Raises UserError for what `open_subject` refuses and for a runner that was asked for by
    its name and does not run here.
    """
    load = os.getloadavg()[0]  # before anything of ours runs
    plan(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject = open_subject(model, options.core, folder, options.student)
        device, threads = pick_device(options.device), options.threads or cores()
        torch.set_num_threads(threads)
        compile_into(folder / "kernels")
        crops, images, others = find_crops(subject, options)
        run = BenchRun(options, subject, device, threads, crops, images, others, options.data, load)
        noun = "thread" if threads == 1 else "threads"
        of = f"crops of {run.source}" if run.source else "synthetic crops, for no --data was given"
        console().print(f"{images} {of}; {threads} {noun}; PyTorch on {device}")
        return _measure(run)


def plan(options: BenchOptions) -> tuple[str, ...]:
    """The names of the runners that `bench` will try; raises UserError for those that never run."""
    device = pick_device(options.device).type
    names = planned(options, device)
    check_device(names, device)
    return names


def _measure(run: BenchRun) -> dict[str, Any]:
    run.choose()
    processes = run.start_each()
    precisions = [spec.precision for spec in run.specs.values()]
    before = roofline.measure(run.device, precisions)
    with run.opened() as runners:
        seconds = {batch: run.turns(runners, batch) for batch in run.batches}
        drifts = run.drifts(runners)
        engines = {name: runner.name for name, runner in runners.items()}
    ceilings = roofline.highest(before, roofline.measure(run.device, precisions))
    costs: Costs = run.attempt("roofline", functools.partial(_costs, run)) or {}
    rows = {}
    for name, engine in engines.items():
        spec = run.specs[name]
        facts = {"engine": engine, "precision": spec.precision, "device": spec.device}
        by_batch = {
            str(batch): _figures(run, name, batch, seconds[batch], ceilings, costs)
            for batch in run.batches
        }
        rows[name] = {**facts, "batches": by_batch, **drifts.get(name, {}), **processes[name]}
    return {
        **_about(run),
        "runners": rows,
        "making": _making(run),
        "cost": {str(batch): vars(cost) for batch, cost in costs.items()},
        "ceilings": vars(ceilings),
        "left_out": run.left_out,
    }


def _figures(
    run: BenchRun,
    name: str,
    batch: int,
    seconds: Mapping[str, Seconds],
    ceilings: roofline.Ceilings,
    costs: Costs,
) -> dict[str, float | None]:
    """Of one runner at one batch."""
    figures = latency(seconds[name], batch)
    if BASE in seconds:
        figures["speed_up"] = speed_up(seconds[BASE], seconds[name])
    spec = run.specs[name]
    is_counted = batch in costs and not name.startswith(STUDENT)  # a student costs less
    if is_counted and spec.device == run.device.type:  # the ceilings are of that device
        median = float(np.median(seconds[name]))
        share = ceilings.share(costs[batch], spec.precision, median)
        if share is not None:
            figures["roofline"] = share
    return figures


def _costs(run: BenchRun) -> Costs:
    """The cost of the fp32 model by batch; it is made now if no runner needed it."""
    subject = run.subject
    if subject.given.suffix == ".onnx" and subject.contract.precision == "fp32":
        path = subject.given
    else:
        path = subject.export("roofline", "fp32")
    model = onnx.load(path)
    return {batch: roofline.count(model, batch) for batch in run.batches}


def _making(run: BenchRun) -> dict[str, Any]:
    """How long models take to make, and `lmk detect` to find the landmarks of an image."""
    subject, first = run.subject, run.crops[:1]
    made: dict[str, Any] = {"export": subject.exported, "engine": subject.built}
    steps = {"switch": functools.partial(making.switch, subject, first, run.threads)}
    for name, built in subject.built.items():
        if name in run.specs:
            engine = Path(run.specs[name].file)
            steps[f"refit-{name}"] = functools.partial(
                making.refit, subject, engine, first, built["cold_s"]
            )
    model = next((s.file for s in run.specs.values() if not is_pytorch(s.kind)), None)
    if model:
        starts = run.options.starts
        steps["detect"] = functools.partial(
            process.detect, Path(model), run.crops[0], run.threads, starts
        )
    for name, step in steps.items():
        if (found := run.attempt(name, step)) is not None:
            made[name] = found
    return made


def _about(run: BenchRun) -> dict[str, Any]:
    here = machine(*(package.distributions[0] for package in runner_packages()))
    return {
        "model": run.subject.facts,
        "crops": {
            "images": run.images,
            "of": run.source,
            "calibration": 0 if run.others is None else len(run.others),  # images, none measured
        },
        "device": run.device.type,
        "threads": run.threads,
        "batches": list(run.batches),
        "machine": {**here, "load": round(run.load, 2)},
    }
