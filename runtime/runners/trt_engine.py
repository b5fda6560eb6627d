"""Engine file -> the engine in the library that built it: execution contexts, other weights."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmk.runtime.errors import UserError
from lmk.runtime.model import ENGINE_NAMES, INPUT, LANDMARKS, SCORES, EngineInfo
from lmk.runtime.runners.gpu import CudaDevice, CudaError, Memory, Stream, capability_text

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

    def prepare_refit(self, model: bytes) -> Callable[[], None]:
        """Give a function that puts the weights of an ONNX model into the engine.

        model: of the graph that the engine was built from; the library's parser finds its weights,
        for an engine has others: a factor and an offset in place of a batch-norm's four tensors.
        The function raises CudaError, after which the weights are undefined. Nothing may run
        meanwhile, and what was captured holds the old weights. Raises UserError for an engine
        whose weights are fixed, and a model of another graph.
        """
        if not self._engine.refittable:
            raise UserError(
                f"{self.path}: got an engine whose weights are fixed, expected one that takes "
                f"others; build one, on a machine with a GPU, by `lmk export PACK --engine "
                f"{ENGINE_NAMES[self.info.recipe.library]} --refit`"
            )
        refitter = self._library.Refitter(self._engine, self._log)
        parser = self._library.OnnxParserRefitter(refitter, self._log)
        if not parser.refit_from_bytes(model):
            errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            raise UserError(
                f"{self.path}: got weights that do not fit ({'; '.join(errors[:_COMPLAINTS])}), "
                "expected those of the graph it was built from; export that pack to an engine of "
                "its own"
            )

        def put(parser: object = parser) -> None:  # which owns what the refitter will read
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


def make_log(library: Any, warnings: int = logging.WARNING) -> Any:
    """A logger for the library `tensorrt` or `tensorrt_rtx` that passes all on to Python's.

    Its `lines` are the error messages so far, one line each. warnings: the level of its warnings.
    """
    severity = library.ILogger.Severity
    levels = {severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR}
    levels |= {severity.WARNING: warnings, severity.INFO: logging.DEBUG}

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
    capability, built, reasons = capability_text(cuda.compute_capability), info.recipe, []
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
