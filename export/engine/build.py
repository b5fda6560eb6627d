"""ONNX file of ours -> engine: parsed into a typed network, checked, built, written.

One path for TensorRT and TensorRT for RTX, which have one Python API. Each batch size gets an
optimisation profile of its own, of that size alone. A runner picks the smallest that holds its
crops and fills it up, so kernels are chosen for exactly the sizes that run, and a CUDA graph, which
has fixed shapes anyway, is recorded once a profile. The price is a larger engine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lmk.export.engine.cache import Built, Cached, cached_engine
from lmk.export.engine.layers import check_layers, count_layers, inspect_kernels
from lmk.export.engine.options import EngineOptions
from lmk.export.engine.place import Site, find_place, set_targets
from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder, check_output, write_bytes
from lmk.runtime.model import (
    INPUT,
    Contract,
    EngineInfo,
    Recipe,
    read_model,
    sha256,
    write_engine,
)
from lmk.runtime.runners import capability_text, make_log

PERCENT = 100  # the steps that a build is reported in
_SHOWN = 3  # lines of TensorRT's own in an error: the first says what, later ones where
_MIB = 1 << 20
_logger = logging.getLogger(__name__)


def export_engine(
    onnx_path: Path,
    output: Path,
    options: EngineOptions,
    force: bool = False,
    report: Callable[[int], None] = lambda percent: None,
    waiting: Callable[[], None] = lambda: None,
    place: Site | None = None,
) -> Cached:
    """Write the engine of the ONNX file `onnx_path` to `output`, from the cache if it is there.

    report: called with the percents of a build. waiting: called when another process builds the
    same engine. place: what `find_place` has found, if it was asked. Raises UserError for an ONNX
    file that is not of `lmk export`, a library or GPU that is missing, a precision that a target
    does not have, an `output` that exists (unless `force`), and with TensorRT's own words when it
    refuses. KeyboardInterrupt cancels the build; whatever fails, nothing is written and what was
    there before is untouched.
    """
    check_output(output, force)
    data, contract = read_model(onnx_path)
    site = place or find_place(options, contract.precision)
    recipe = make_recipe(site, data, contract, options)
    folder = cache_folder() / "engines"
    timings = folder / f"timings-{options.library}-{site.trt.__version__}"

    def build() -> Built:
        return build_engine(site, data, contract, recipe, report, timings)

    found = cached_engine(recipe, contract.pack_sha256, folder, build, waiting)
    write_engine(output, found.info, found.plan)
    return found


def make_recipe(place: Site, data: bytes, contract: Contract, options: EngineOptions) -> Recipe:
    """All that decides what engine comes out of the ONNX file `data` at `place`."""
    return Recipe(
        onnx_sha256=sha256(data),
        precision=contract.precision,
        library=options.library,
        library_version=place.trt.__version__,
        gpu=place.gpu.name if place.gpu and options.library == "tensorrt" else "",
        targets=place.targets,
        batches=tuple(sorted(set(options.batches))),
        refittable=place.refittable,
        level=options.level,
        workspace_mib=options.workspace_mib,
    )


def build_engine(
    place: Site,
    data: bytes,
    contract: Contract,
    recipe: Recipe,
    report: Callable[[int], None],
    timings: Path,
) -> Built:
    """Build the ONNX model `data` by `recipe` at `place`; returns the header and the plan.

    timings: where TensorRT keeps what it measured of kernels, for the next build.
    """
    trt, gpu = place.trt, place.gpu
    log = make_log(trt, warnings=logging.INFO)  # an int8 engine has a hundred, about its choices
    builder = trt.Builder(log)
    network, _parser = _parse(trt, builder, data, log)  # the parser owns the weights
    layers, convolutions = count_layers(trt, network)
    check_layers(recipe.precision, layers, convolutions)
    config = _configure(trt, builder, contract, recipe)
    keep = _with_timings(config, timings) if recipe.library == "tensorrt" else lambda: None
    started = time.monotonic()
    plan = _build(trt, builder, network, config, log, report)
    seconds = time.monotonic() - started
    keep()
    for line in log.lines:  # it managed without
        _logger.warning("%s: %s", recipe.library, line)
    # What it runs is seen where this machine can load it.
    loads = gpu and (not recipe.targets or capability_text(gpu.capability) in recipe.targets)
    return (
        EngineInfo(
            contract=contract,
            recipe=recipe,
            layers=layers,
            convolutions=convolutions,
            kernels=inspect_kernels(trt, plan, log) if loads else {},
            build_seconds=round(seconds, 3),
            plan_bytes=len(plan),
            plan_sha256=sha256(plan),
        ),
        plan,
    )


def _parse(trt: Any, builder: Any, data: bytes, log: Any) -> tuple[Any, Any]:
    """ONNX -> network, whose types are those of the graph and no layer's choice, and its parser."""
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # TensorRT 11 has no other networks
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(data):
        cure = "export the pack again, or with another --precision"
        raise failure(log, f"{trt.__name__}: cannot take this ONNX model", cure)
    return network, parser


def _configure(trt: Any, builder: Any, contract: Contract, recipe: Recipe) -> Any:
    config = builder.create_builder_config()
    # On by default, it would round the factors of fp32 convolutions to 10 bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    if recipe.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    config.builder_optimization_level = recipe.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what the inspector reads
    if recipe.workspace_mib is not None:
        size = recipe.workspace_mib * _MIB
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    if recipe.library == "tensorrt_rtx" and recipe.targets:
        set_targets(trt, config, recipe.targets)
    for batch in recipe.batches:
        shape = (batch, contract.input_size, contract.input_size, 3)
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, shape, shape, shape)
        config.add_optimization_profile(profile)
    return config


def _build(
    trt: Any, builder: Any, network: Any, config: Any, log: Any, report: Callable[[int], None]
) -> bytes:
    """Build in a thread of its own: only then Ctrl-C arrives here before the build is over."""
    config.progress_monitor = monitor = monitor_of(trt, report)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(builder.build_serialized_network, network, config)
        try:
            plan = future.result()
        except KeyboardInterrupt:
            monitor.cancel()  # the pool waits for the step that runs
            raise
    if plan is None:
        cure = "see `lmk doctor`, try another --precision or --targets, or a larger --workspace"
        raise failure(log, f"{trt.__name__}: cannot build this engine", cure)
    report(PERCENT)
    return bytes(plan)


def _with_timings(config: Any, path: Path) -> Callable[[], None]:
    """Give `config` what earlier builds measured; the result writes it back.

    A file of another GPU or a damaged one is begun anew. TensorRT for RTX measures nothing when it
    builds.
    """
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return lambda: write_bytes(path, bytes(config.get_timing_cache().serialize()))


def failure(log: Any, what: str, cure: str) -> UserError:
    """The error for what TensorRT refused, with the lines that it logged."""
    # Without a driver each error is followed by a second one that says only this.
    lines = [line for line in dict.fromkeys(log.lines) if "catchCudaError" not in line][:_SHOWN]
    return UserError(f"{what}: {'; '.join(lines) or 'TensorRT gave no reason'}; {cure}")


def monitor_of(trt: Any, report: Callable[[int], None]) -> Any:
    """An `IProgressMonitor` that calls `report` with percents; `cancel()` ends the build.

    TensorRT's phases are nested: a step of one is a phase of steps. It calls from several threads.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, done
            self._percent = 0
            self._cancelled = False

        def cancel(self) -> None:
            self._cancelled = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                parent, steps, _ = self._phases[phase_name]
                self._phases[phase_name] = (parent, steps, step + 1)
                percent = int(PERCENT * progress_of(self._phases, phase_name))
                if percent > self._percent:  # phases side by side are not in order
                    self._percent = percent
                    report(percent)
            return not self._cancelled

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

    return Monitor()


def progress_of(phases: dict[str, tuple[str | None, int, int]], name: str | None) -> float:
    """How much of the whole build, 0 to 1, is done after the last step of the phase `name`.

    phases: parent, number of steps and steps done of each.
    """
    share = 0.0
    while name in phases:
        parent, steps, done = phases[name]
        share = min(done + share, steps) / max(steps, 1)
        name = parent
    return share
