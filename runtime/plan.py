"""Engine file -> the engine in the library that built it: execution contexts, other weights."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.contract import INPUT, LANDMARKS, SCORES
from lmk.runtime.cuda import CudaDevice, CudaError, Memory, Stream
from lmk.runtime.engine_file import ENGINE_NAMES, EngineInfo
from lmk.runtime.errors import UserError

_PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_COMPLAINTS = 3  # of the library, in one message
_logger = logging.getLogger(__name__)


class Plan:
    """A deserialised engine. Everything here needs `with cuda.current():`.

    `tensorrt` and `tensorrt_rtx` have one Python interface; what only one of them has is asked for
    by name. Raises UserError for a library that is missing and for an engine that was built for
    another GPU or by another version.
    """

    def __init__(self, path: Path, info: EngineInfo, data: bytes, cuda: CudaDevice) -> None:
        self.path, self.info = path, info
        self._library = _import(info, path)
        self._log = make_log(self._library)
        runtime = self._library.Runtime(self._log)
        self._engine: Any = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise _refused(info, path, self._library.__version__, cuda, self.complaints())
        self._memory_rule = self._make_memory_rule()
        self._making = threading.Lock()  # an engine makes one context at a time
        self._check_tensors()

    def scratch_bytes(self, profile: int) -> int:
        """Device memory that a context of that profile computes in."""
        return int(self._engine.get_device_memory_size_for_profile_v2(profile))

    def context(
        self, profile: int, addresses: Mapping[str, int], scratch: Memory, stream: Stream
    ) -> Any:
        """An execution context of one optimisation profile, for tensors at `addresses`.

        scratch: what `scratch_bytes` says, in use as long as the context. Raises CudaError.
        """
        with self._making:
            context = self._engine.create_execution_context(self._memory_rule)
        if context is None or not context.set_optimization_profile_async(profile, stream.handle):
            raise CudaError(self.complaints())
        stream.sync()  # the profile is set in that stream
        context.set_device_memory(scratch.pointer, scratch.nbytes)
        shape = tuple(self._engine.get_tensor_profile_shape(INPUT, profile)[1])
        done = [context.set_input_shape(INPUT, shape)]
        done += [context.set_tensor_address(*item) for item in addresses.items()]
        if not all(done):
            raise CudaError(self.complaints())
        return context

    def enqueue(self, context: Any, stream: Stream) -> None:
        """Enqueue one run of `context`; raises CudaError."""
        if not context.execute_async_v3(stream.handle):
            raise CudaError(self.complaints())

    def check_capturable(self, context: Any, stream: Stream) -> None:
        """Raise CudaError if the engine does something in a run that no graph can hold."""
        # Only TensorRT for RTX, which compiles kernels when it first needs them, has to be asked.
        asked = getattr(context, "is_stream_capturable", None)
        if asked is not None and not asked(stream.handle):
            raise CudaError("this engine cannot be captured in a CUDA graph; load it without")

    def refit_names(self) -> tuple[str, ...]:
        """The names of all weights that `prepare_refit` takes; none if they are fixed."""
        if not self._engine.refittable:
            return ()
        refitter = self._library.Refitter(self._engine, self._log)
        return tuple(sorted(refitter.get_all_weights()))

    def prepare_refit(self, tensors: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """Give a function that puts other weights into the engine, by their names in the graph.

        tensors: one for each of `refit_names`, in its shape and dtype; bfloat16 as uint16 of the
        same bits. The function raises CudaError, after which the weights are undefined. Nothing
        may run meanwhile, and what was captured holds the old weights. Raises UserError for a
        tensor that is missing, unknown, of the wrong dtype or size or not finite, and for an
        engine whose weights are fixed.
        """
        wanted = set(self.refit_names())
        if not wanted:
            raise UserError(
                f"{self.path}: got an engine whose weights are fixed, expected one that takes "
                "others; export the pack with --refit, on a machine with a GPU"
            )
        self._check_names(wanted, set(tensors))
        refitter = self._library.Refitter(self._engine, self._log)
        kept = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        for name, tensor in kept.items():
            weights = self._weights(name, tensor, refitter.get_weights_prototype(name))
            if not refitter.set_named_weights(name, weights):
                raise UserError(f"{self.path}: weights '{name}': {self.complaints()}")
        missing = refitter.get_missing_weights()
        if missing:
            raise UserError(
                f"{self.path}: got no weights '{missing[0]}', which the engine computes together "
                "with others that are given; export the pack again"
            )

        def put(kept: object = kept) -> None:  # the refitter has only their addresses
            if not refitter.refit_cuda_engine():
                raise CudaError(self.complaints())

        return put

    def complaints(self) -> str:
        """What the library has logged as errors since the last call, in one line."""
        lines, self._log.lines = self._log.lines[-_COMPLAINTS:], []
        return "; ".join(lines) or f"{self._library.__name__} gave no reason"

    def close(self) -> None:
        """Free the engine; all contexts must be gone."""
        self._engine = self._memory_rule = None

    def _make_memory_rule(self) -> Any:
        """How contexts are made: in memory that we allocate, so that we know how much it is."""
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.info.recipe.library == "tensorrt":
            return strategy
        # TensorRT for RTX compiles kernels on this machine: once for all contexts, and before the
        # first run, since a graph would keep the stand-ins of lazy compilation.
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.set_runtime_cache(config.create_runtime_cache())
        kernels = self._library.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
        return config

    def _check_tensors(self) -> None:
        """Raise UserError unless the tensors are the contract's: buffers are made by that."""
        contract, engine = self.info.contract, self._engine
        expected = {
            INPUT: [contract.input_size, contract.input_size, 3],
            LANDMARKS: [contract.num_landmarks, 2],
            SCORES: [contract.num_landmarks],
        }
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {name: list(engine.get_tensor_shape(name))[1:] for name in names}
        batches = tuple(
            int(engine.get_tensor_profile_shape(INPUT, profile)[1][0])
            for profile in range(engine.num_optimization_profiles)
        )
        if found != expected or batches != self.info.recipe.batches:
            raise UserError(
                f"{self.path}: got tensors {found} for batches {batches}, expected {expected} for "
                f"{self.info.recipe.batches}; export the pack again"
            )

    def _check_names(self, wanted: set[str], given: set[str]) -> None:
        if wanted == given:
            return
        word, odd = ("no", wanted - given) if wanted - given else ("unknown", given - wanted)
        raise UserError(
            f"{self.path}: got {word} weights '{min(odd)}' ({len(odd)} such), expected the "
            f"{len(wanted)} that the engine can change; take the engine's own core and template"
        )

    def _weights(self, name: str, tensor: NDArray[Any], prototype: Any) -> Any:
        """`tensor` for the refitter, checked against what the engine has under that name."""
        kind = prototype.dtype
        is_bfloat16 = kind == self._library.DataType.BF16  # has no dtype in NumPy
        dtype = np.dtype(np.uint16 if is_bfloat16 else self._library.nptype(kind))
        if (tensor.dtype, tensor.size) != (dtype, prototype.size):
            raise UserError(
                f"{self.path}: weights '{name}': got {tensor.size} values of {tensor.dtype}, "
                f"expected {prototype.size} of {dtype}; take a pack for the engine's own core"
            )
        if not is_bfloat16 and not np.isfinite(tensor).all():
            raise UserError(
                f"{self.path}: weights '{name}': got a value that is not finite, expected numbers; "
                "adapt the pack again"
            )
        return self._library.Weights(kind, tensor.ctypes.data, tensor.size)


def make_log(library: Any) -> Any:
    """A logger for the library `tensorrt` or `tensorrt_rtx` that passes all on to Python's.

    Its `lines` are the error messages so far, one line each.
    """
    severity = library.ILogger.Severity
    levels = {severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR}
    levels |= {severity.WARNING: logging.WARNING, severity.INFO: logging.DEBUG}

    class Log(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.NOTSET)
            if level == logging.ERROR:
                # The reason travels in an exception, so it is not shown a second time.
                self.lines.append(" ".join(message.split()))
                level = logging.DEBUG
            if level:
                _logger.log(level, "%s: %s", library.__name__, message)

    return Log()


def _import(info: EngineInfo, path: Path) -> Any:
    library = info.recipe.library
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{library}: not installed, needed to run {path} (made by {info.titled_library}); "
            f"pip install {_PACKAGES[library]}=={info.recipe.library_version}"
        ) from error


def _refused(
    info: EngineInfo, path: Path, version: str, cuda: CudaDevice, complaints: str
) -> UserError:
    """Why an engine cannot be loaded, and how to build the one that can."""
    capability = ".".join(map(str, cuda.compute_capability))
    built = info.recipe
    reasons = []
    if built.library_version != version:
        reasons.append(f"built by version {built.library_version}, expected {version}")
    if built.gpu and built.gpu != cuda.name:
        reasons.append(f"built for {built.gpu}, expected {cuda.name}")
    elif built.targets and capability not in built.targets:
        targets = ", ".join(built.targets)
        reasons.append(f"built for compute capability {targets}, expected {capability}")
    what = f"got an engine {', and '.join(reasons)}" if reasons else f"it says '{complaints}'"
    return UserError(
        f"{path}: {built.library} cannot load it here: {what}; build one here with "
        f"`lmk export PACK --engine {ENGINE_NAMES[built.library]}`"
    )
