"""Options and this machine -> where an engine is built and what for."""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from typing import Any

from lmk.export.engine.options import EngineOptions
from lmk.runtime.errors import UserError
from lmk.runtime.model import LIBRARY_TITLES, SINCE, Library, Precision
from lmk.runtime.runners import Gpu, capability_text, open_device, parse_capability

_PACKAGES = {
    "tensorrt": "tensorrt cuda-core cuda-bindings",
    "tensorrt_rtx": "tensorrt-rtx cuda-core cuda-bindings",
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """Where an engine is built."""

    trt: Any  # the module tensorrt or tensorrt_rtx
    gpu: Gpu | None  # of this machine
    targets: tuple[str, ...]  # see `Recipe`
    refittable: bool


def find_place(options: EngineOptions, precision: Precision) -> Site:
    """Where and what for an engine of `options` is built.

    Raises UserError for a library or GPU that is missing, and for targets that the library, the GPU
    or `precision` does not allow.
    """
    trt, gpu = module(options.library), local_gpu()
    if options.library == "tensorrt":
        targets = _only_here(gpu, options)
    else:
        check_targets(trt, options.targets)
        targets = tuple(sorted(set(options.targets), key=parse_capability))
    check_precision(precision, targets)
    if options.refittable and gpu is None:
        raise UserError(
            "refit: got no GPU, which TensorRT needs to build an engine that takes other weights; "
            "build on a machine with one, or leave --refit out"
        )
    refittable = gpu is not None if options.refittable is None else options.refittable
    return Site(trt, gpu, targets, refittable)


def _only_here(gpu: Gpu | None, options: EngineOptions) -> tuple[str, ...]:
    """The target of TensorRT: its engines are built on, and run on, one kind of GPU."""
    if gpu is None:
        raise UserError(
            "tensorrt: got no GPU, expected the one that the engine is for; build on that machine, "
            "or use `--engine rtx`, which builds without one"
        )
    capability = capability_text(gpu.capability)
    if options.targets not in ((), (capability,)):
        raise UserError(
            f"targets: got {', '.join(options.targets)}, expected {capability}, this machine's "
            f"{gpu.name}; leave --targets out, or use `--engine rtx` for other GPUs"
        )
    return (capability,)


def module(library: Library) -> Any:
    """Import `library`; raises UserError with the line that installs it."""
    title, cure = LIBRARY_TITLES[library], f"pip install {_PACKAGES[library]}"
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{library}: got no module {error.name}, needed to build engines of {title}; {cure}"
        ) from error
    except Exception as error:  # of a library that does not load, whatever it is
        reason = " ".join(str(error).split())
        raise UserError(f"{library}: cannot be imported ({reason}); {cure}") from error


def local_gpu() -> Gpu | None:
    """The first GPU of this machine, None without one."""
    try:
        device = open_device()
    except UserError as error:
        _logger.debug("no GPU to build on: %s", error)
        return None
    return Gpu(device.name, device.compute_capability)


def check_targets(trt: Any, targets: tuple[str, ...]) -> None:
    """Raise UserError unless `trt` builds for each compute capability ("8.6") of `targets`."""
    known = [capability_text(each) for each in sorted(_capabilities(trt))]
    for target in targets:
        if target not in known:
            raise UserError(
                f"targets: got '{target}', expected some of {', '.join(known)}, those that "
                f"{trt.__name__} {trt.__version__} builds for; leave others out"
            )


def check_precision(precision: Precision, capabilities: tuple[str, ...]) -> None:
    """Raise UserError unless every compute capability knows `precision`; says which ones it has."""
    for capability in capabilities:
        fitting = [name for name, since in SINCE.items() if since <= parse_capability(capability)]
        if precision not in fitting:
            raise UserError(
                f"precision {precision}: got compute capability {capability}, expected "
                f"{capability_text(SINCE[precision])} or newer; {capability} takes "
                f"{', '.join(fitting) or 'none'}: export with another --precision or for other "
                "--targets"
            )


def set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """Make `config` build for the compute capabilities `targets`; none is the library's default."""
    members = _capabilities(trt)
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(members[parse_capability(target)], index)


def _capabilities(trt: Any) -> dict[tuple[int, int], Any]:
    """TensorRT's names by compute capability: SM86, SM120 -> (8, 6), (12, 0)."""
    members = trt.ComputeCapability.__members__.items()
    return {parse_capability(n): each for n, each in members if re.fullmatch(r"SM\d\d+", n)}
