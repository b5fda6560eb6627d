"""ONNX file of ours -> engine: parsed into a typed network, checked, built, written.

One path for TensorRT and TensorRT for RTX. Each batch size gets an optimisation profile of its own,
of that size alone. A runner picks the smallest that holds its crops and fills it up, so kernels are
chosen for exactly the sizes that run, and a CUDA graph, which has fixed shapes anyway, is recorded
once a profile. The price is a larger engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lmk.export.engine.cache import Built, Cached, cached_engine
from lmk.export.engine.layers import check_layers, count_layers, inspect_kernels
from lmk.export.engine.log import PERCENT, failure, log_of, monitor_of
from lmk.export.engine.options import EngineOptions
from lmk.export.engine.place import Site, find_place, local_gpu, set_targets
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

_MIB = 1 << 20
_logger = logging.getLogger(__name__)


def export_engine(
    onnx_path: Path,
    output: Path,
    options: EngineOptions,
    force: bool = False,
    report: Callable[[int], None] = lambda percent: None,
    waiting: Callable[[], None] = lambda: None,
) -> Cached:
    """Write the engine of the ONNX file `onnx_path` to `output`, from the cache if it is there.

    report: called with the percents of a build. waiting: called when another process builds the
    same engine. Raises UserError for an ONNX file that is not of `lmk export`, a library or GPU
    that is missing, a precision that a target does not have, an `output` that exists (unless
    `force`), and with TensorRT's own words when it refuses. KeyboardInterrupt cancels the build;
    whatever fails, nothing is written and what was there before is untouched.
    """
    check_output(output, force)
    data, contract = read_model(onnx_path)
    place = find_place(options, contract.precision)
    trt, recipe = place.trt, make_recipe(place, data, contract, options)
    folder = cache_folder() / "engines"

    def build() -> Built:
        timings = folder / f"timings-{options.library}-{trt.__version__}"
        return build_engine(trt, data, contract, recipe, report, timings)

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
    trt: Any,
    data: bytes,
    contract: Contract,
    recipe: Recipe,
    report: Callable[[int], None],
    timings: Path,
) -> Built:
    """Build the ONNX model `data` by `recipe`; returns the header and the plan.

    timings: where TensorRT keeps what it measured of kernels, for the next build.
    """
    log = log_of(trt)
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
    return (
        EngineInfo(
            contract=contract,
            recipe=recipe,
            layers=layers,
            convolutions=convolutions,
            kernels=_kernels(trt, plan, log, recipe),
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


def _kernels(trt: Any, plan: bytes, log: Any, recipe: Recipe) -> dict[str, int]:
    """What the built engine runs, where this machine can load it; else nothing."""
    gpu = local_gpu()
    if gpu is None or (recipe.targets and gpu.capability not in recipe.targets):
        return {}
    return inspect_kernels(trt, plan, log)
