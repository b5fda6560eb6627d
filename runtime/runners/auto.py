"""`--device auto`: the quickest runner here whose landmarks are those of the plain one.

Decided once for a model, a machine and its libraries, by measuring; the same on every later run.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder, write_bytes
from lmk.runtime.model import (
    ENGINE_NAMES,
    LIMITS_PX,
    PRECISIONS,
    Contract,
    Precision,
    Reading,
    compare,
    compose_file,
    composed,
    pack_of,
    probe_crops,
    read_info,
    read_model,
    record,
    shaken,
    stamp,
    workspace,
)
from lmk.runtime.runners.ort import OrtRunner, SideBySide
from lmk.runtime.runners.ov import cpu_flags
from lmk.runtime.runners.registry import RUNNERS, RunnerEntry
from lmk.runtime.runners.runner import Runner
from lmk.runtime.terminal import console

_RULE = 2  # a choice by an earlier one is made anew
_GATE: Precision = "bf16"  # its limits on drift hold for whatever is chosen
_PROBES = 8  # batches of crops that landmarks are compared in
_BATCH = 4  # crops that go through a model together in a film
_ROUNDS, _SECONDS = 15, 1.5  # at most so many turns, and as many as fit into that
_WORTH = 1.1  # times as fast, or it is not worth another runner
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # of a processor, x86's words and ARM's


@dataclass(frozen=True)
class Choice:
    """A model file, the device that runs it, and why."""

    model: Path
    device: str  # a word of `RUNNERS`
    words: str


@dataclass(frozen=True)
class _Candidate:
    path: Path
    entry: RunnerEntry

    @property
    def name(self) -> str:
        return f"{self.entry.title} ({self.path.name})"


def choose(model: Path, threads: int | None = None, side_by_side: bool = False) -> Choice:
    """What to run the ONNX file `model` by: decided now, or as it was decided before.

    threads, side_by_side: as of `open_runner`; they decide too. With a GPU the first of TensorRT,
    where an engine of the same pack lies beside the model, and ONNX Runtime; else the quickest of
    ONNX Runtime and OpenVINO on the model and on those of the same pack in fewer bits. Each only
    where the landmarks in synthetic crops are within the limits of the drift gate of those that
    ONNX Runtime finds on the CPU, as drifts there are on pictures: see `_Gate`. Raises UserError
    for a file that is no model.
    """
    _, contract = read_model(model)
    candidates = _candidates(model, contract)
    if len(candidates) == 1:
        return Choice(*_place(candidates[0]), "nothing else here runs it")
    key = _key(candidates, contract, threads, side_by_side)
    folder = _folder()
    if folder is None:
        console().print("device: decided for this run alone; LMK_CACHE names a folder to keep it")
        return _decide(candidates, threads, side_by_side)
    kept = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"
    with FileLock(kept.with_suffix(".lock")):  # of two that decide at once one does
        choice = _read(kept, key)
        if choice is None:
            choice = _decide(candidates, threads, side_by_side)
            choice = replace(choice, model=choice.model.resolve())  # it is kept for every folder
            fields = {name: str(value) for name, value in asdict(choice).items()}
            write_bytes(kept, json.dumps({"for": key} | fields, indent=1).encode())
    return choice


def for_shipped() -> str:
    """What `choose` takes here for a category that ships, in words; decided as for any other model.

    Raises UserError where its model cannot be made.
    """
    pack = workspace.ZOO / "cats.safetensors"
    model = cache_folder() / "models" / f"{pack.stem}.onnx"
    compose_file(pack, model)
    choice = choose(model)
    return f"{choice.device} for {pack.stem} ({choice.words})"


def _folder() -> Path | None:
    """Where choices are kept; None where nothing can be written there."""
    try:
        folder = cache_folder() / "auto"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, UserError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _read(kept: Path, key: str) -> Choice | None:
    """What was decided before; None where nothing was, or its file is damaged, which is said."""
    try:
        fields = json.loads(kept.read_bytes())
        if fields["for"] != key:
            raise ValueError("it is of something else")
        return Choice(Path(fields["model"]), str(fields["device"]), str(fields["words"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        console().print(f"device: {kept} is damaged ({error}); it is decided anew")
    return None


def _candidates(model: Path, contract: Contract) -> list[_Candidate]:
    """What might run the model or one of the same pack: the plain runner, then engines."""
    files = [(model, contract)]
    if contract.precision == "fp32":
        for precision in PRECISIONS:
            path = model.with_name(f"{model.stem}-{precision}.onnx")
            if path.is_file() and (found := _same_pack(path, contract)):
                files.append((path, found))
        if not _BF16.isdisjoint(cpu_flags()) and "bf16" not in {c.precision for _, c in files}:
            files += _in_bf16(model, contract)
    entries = [entry for entry in RUNNERS if _is_installed(entry.packages[0].module)]
    if not _has_gpu():
        entries = [entry for entry in entries if entry.place == "cpu"]
    able = [
        _Candidate(path, entry)
        for entry in entries
        for path, each in (files if entry.suffix == ".onnx" else _engines(model, contract, entry))
        if each.precision in entry.precisions
    ]
    plain = next((each for each in able if each.entry is RUNNERS[0]), None)
    return sorted(able, key=lambda one: (one is not plain, one.path.suffix != ".engine"))


def _same_pack(path: Path, contract: Contract) -> Contract | None:
    try:
        found = read_model(path)[1]
    except UserError:
        return None  # a file of someone else
    same = (found.pack_sha256, found.landmark_names) == (
        contract.pack_sha256,
        contract.landmark_names,
    )
    return found if same else None


def _in_bf16(model: Path, contract: Contract) -> list[tuple[Path, Contract]]:
    """The pack's model in bfloat16, made without torch; none where its template is not there."""
    name = f"{model.stem}-{contract.pack_sha256[:12]}-bf16.onnx"
    path = cache_folder() / "models" / name
    if not path.is_file():
        try:
            pack = pack_of(contract, model.parent)
            if pack is None:
                return []
            made = composed(pack, "bf16")
        except UserError:
            return []
        checked = {"reference": "none"}  # `_decide` checks it
        write_bytes(path, stamp(made.model, replace(made.contract, drift=checked)))
    found = _same_pack(path, contract)
    return [(path, found)] if found else []


def _engines(
    model: Path, contract: Contract, entry: RunnerEntry
) -> Iterator[tuple[Path, Contract]]:
    """Engine files beside the fp32 model that were built of its pack for the runner `entry`."""
    for path in sorted(model.parent.glob("*.engine")) if contract.precision == "fp32" else ():
        try:
            info = read_info(path)
        except UserError:
            continue  # of another version, damaged, or of someone else
        same = info.contract.pack_sha256 == contract.pack_sha256
        if same and ENGINE_NAMES[info.recipe.library] == entry.name:
            yield path, info.contract


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of the package that it is in
        return False


def _has_gpu() -> bool:
    """Whether NVIDIA's driver is here and sees a GPU."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 < count.value


def _key(
    candidates: list[_Candidate], contract: Contract, threads: int | None, side_by_side: bool
) -> str:
    """What the choice depends on: model, what runs it, machine, libraries."""
    packages = dict.fromkeys(p for each in candidates for p in each.entry.packages)
    distributions = ["lmk-toolkit", *(name for each in packages for name in each.distributions)]
    versions = {name: _version(name) for name in distributions}
    affinity = getattr(os, "sched_getaffinity", None)
    machine = [
        platform.machine(),
        sorted(cpu_flags()),
        len(affinity(0)) if affinity else os.cpu_count(),
        [each.entry.name for each in candidates if each.entry.place == "cuda"],
    ]
    model = [contract.pack_sha256, contract.precision, contract.crop_scale]
    files = [(str(each.path.resolve()), each.path.stat().st_size) for each in candidates]
    asked = [threads, side_by_side, _RULE]
    return json.dumps([model, files, asked, machine, versions], sort_keys=True)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _decide(candidates: list[_Candidate], threads: int | None, side_by_side: bool) -> Choice:
    """Open all, leave out what fails or is elsewhere, time the others in turns."""
    plain = candidates[0]
    notes: list[str] = []
    with ExitStack() as opened:

        def opened_runner(candidate: _Candidate) -> Runner:
            runner = _open(candidate, threads, side_by_side)
            opened.callback(runner.close)
            return runner

        reference = opened_runner(plain)
        size, gate = reference.contract.input_size, _Gate(reference)
        runners, drifts = {plain: reference}, {plain: 0.0}
        for candidate in candidates[1:]:
            try:
                runner = opened_runner(candidate)
                drift = gate(runner, candidate.name)
            except UserError as error:
                notes.append(f"{candidate.name} left out: {_first(error)}")
                continue
            if candidate.entry.place == "cuda":  # any of them is quicker than a processor
                how = f"{candidate.name}, about {drift:.2g} px from ONNX Runtime on the CPU"
                return Choice(*_place(candidate), how)
            runners[candidate], drifts[candidate] = runner, drift
        seconds = _timed(runners, probe_crops(size, _BATCH if side_by_side else 1))
    gains = {each: seconds[plain] / taken for each, taken in seconds.items()}
    best = max(gains, key=lambda each: gains[each])
    if gains[best] < _WORTH:
        notes[:0] = [f"{c.name} {gain:.2f} x as fast" for c, gain in gains.items() if c != plain]
        return Choice(*_place(plain), f"{plain.entry.title}; " + "; ".join(notes))
    words = (
        f"{gains[best]:.1f} x as fast as {plain.entry.title}, about {drifts[best]:.2g} px from it"
    )
    return Choice(*_place(best), "; ".join([f"{best.name} is {words}", *notes]))


class _Gate:
    """Whether a runner finds what `reference` does, up to what fewer bits may change.

    Of synthetic crops, for a choice must not depend on what is detected first. In these maps are
    spread, and whatever is rounded moves a landmark several times as far as on pictures; so does
    noise in the crop. Distances are shortened by as much as such noise moves the landmarks of the
    reference further than the limit of the mean, which is about what it does on pictures.
    """

    def __init__(self, reference: Runner) -> None:
        self.names, size = reference.contract.landmark_names, reference.contract.input_size
        self.batches = np.split(probe_crops(size, _PROBES * _BATCH), _PROBES)
        self.expected = self._found(reference, self.batches)
        moved = self._found(reference, [shaken(crops) for crops in self.batches])[0]
        mean = float(np.linalg.norm(moved - self.expected[0], axis=2).mean())
        self.scale = min(1.0, LIMITS_PX[_GATE]["mean"] / mean) if mean else 1.0

    def __call__(self, runner: Runner, name: str) -> float:
        """Mean distance in pixels, shortened; raises UserError, about `name`, over a limit."""
        points, scores = self._found(runner, self.batches)
        points = self.expected[0] + self.scale * (points - self.expected[0])
        probe = record(*self.expected)
        told = compare((points, scores), probe, self.names, _GATE, name, "left out")
        return float(told["mean_px"])

    @staticmethod
    def _found(runner: Runner, batches: list[NDArray[np.uint8]]) -> Reading:
        points, scores = zip(*(runner(crops) for crops in batches), strict=True)
        return np.concatenate(points), np.concatenate(scores)


def _open(candidate: _Candidate, threads: int | None, side_by_side: bool) -> Runner:
    if side_by_side and candidate.entry.device == "cpu":
        return SideBySide(OrtRunner(candidate.path, "cpu", threads=1), threads)
    return candidate.entry.open(candidate.path, threads, ())


def _timed(runners: dict[_Candidate, Runner], crops: NDArray[np.uint8]) -> dict[_Candidate, float]:
    """Median seconds of each for the crops, in turns, so that a busy moment meets them all."""
    taken: dict[_Candidate, list[float]] = {each: [] for each in runners}
    for runner in runners.values():
        runner(crops)  # the first run of a size prepares for it
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for candidate, runner in runners.items():
            before = time.perf_counter()
            runner(crops)
            taken[candidate].append(time.perf_counter() - before)
        if time.perf_counter() - started > _SECONDS:
            break
    return {each: statistics.median(values) for each, values in taken.items()}


def _place(candidate: _Candidate) -> tuple[Path, str]:
    return candidate.path, candidate.entry.device


def _first(error: UserError) -> str:
    """What went wrong, without its cure."""
    return str(error).split(";")[0]
