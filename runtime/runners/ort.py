"""Crops -> landmarks through ONNX Runtime, on exactly the device that was asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.model import INPUT, LANDMARKS, SCORES, Contract, Reading, read_model
from lmk.runtime.runners.gpu import is_on_device
from lmk.runtime.runners.ort_cuda import BoundSession, Producer
from lmk.runtime.runners.runner import Runner, check_crops, host_array

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_LOG_WARNING, _LOG_FATAL = 2, 4  # onnxruntime's own levels
_SPIN_US = "100"
_logger = logging.getLogger(__name__)


class OrtRunner(Runner):
    """An ONNX file made by `lmk export`, run by ONNX Runtime.

    device: "cpu" or "cuda". threads: CPU threads inside an operator; None = one a core. buckets:
    batch sizes that the cuda device runs as CUDA graphs, to which other batches are cut and
    padded; none = any batch as it is. Raises UserError for a file that is not such a model and for
    a device that does not load.
    """

    def __init__(
        self,
        path: Path | str,
        device: str = "cpu",
        threads: int | None = None,
        buckets: Sequence[int] = (),
    ) -> None:
        if device not in PROVIDERS:
            raise UserError(f"device: got '{device}', expected one of {', '.join(PROVIDERS)}")
        if threads is not None and threads < 1:
            raise UserError(f"threads: got {threads}, expected 1 or more")
        if any(bucket < 1 for bucket in buckets):
            raise UserError(f"buckets: got {min(buckets)}, expected batch sizes of 1 or more")
        if buckets and device != "cuda":
            raise UserError(f"buckets: got device '{device}', expected cuda; leave buckets out")
        provider = PROVIDERS[device]
        graphs = {"enable_cuda_graph": "1"} if buckets else {}
        data, self.contract = read_model(Path(path))
        self._session: onnxruntime.InferenceSession | None = open_session(
            Path(path), provider, threads, graphs, data
        )
        self.name = f"onnxruntime {provider}"
        if buckets:
            self.name += f", CUDA graphs for batches {', '.join(map(str, sorted(buckets)))}"
        _check_tensors(self._session, self.contract, path)
        self._has_graphs = bool(buckets)
        self._bound: BoundSession | None = BoundSession(self._session, self.contract, buckets)
        self._producer = Producer() if device == "cuda" else None

    def __call__(self, crops: Any) -> Reading:
        """See `Runner.__call__`. On the cuda device, crops in device memory (DLPack,
        __cuda_array_interface__) are used where they are.
        """
        session, bound = self._session, self._bound
        if session is None or bound is None:
            raise ValueError("OrtRunner: called after close()")
        if is_on_device(crops):
            if self._producer is None:
                raise ValueError(
                    "crops: got an array in device memory, expected one in host memory; copy it, "
                    "or load the model on the cuda device"
                )
            with self._producer.finished(crops) as view:
                check_crops(view, self.contract)
                return self._reported(view.shape[0], lambda: bound.run_view(view))
        array = host_array(crops)
        check_crops(array, self.contract)
        if self._has_graphs:
            return self._reported(len(array), lambda: bound.run(array))
        return self._reported(len(array), lambda: session.run([LANDMARKS, SCORES], {INPUT: array}))

    def close(self) -> None:
        """Free the session."""
        self._session = self._bound = self._producer = None

    def _reported(self, count: int, run: Callable[[], Sequence[Any]]) -> Reading:
        try:
            landmarks, scores = run()
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UserError(
                f"{self.name}: cannot run a batch of {count} ({_reason(error)}); "
                "try a smaller batch"
            ) from error
        return landmarks, scores


def open_session(
    path: Path,
    provider: str,
    threads: int | None,
    settings: Mapping[str, str] | None = None,
    data: bytes | None = None,
) -> onnxruntime.InferenceSession:
    """A session of the file `path` whose first provider is `provider`, with `settings` of its own.

    data: the file's bytes where they have been read. Raises UserError.
    """
    import onnxruntime  # 0.2 s: not when `lmk` is imported

    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a model made by `lmk export`; name a file")
    if not path.is_file():
        raise UserError(f"{path}: got no such file, expected a model made by `lmk export`")
    if provider not in onnxruntime.get_available_providers():
        raise _provider_error(provider, f"onnxruntime {onnxruntime.__version__} was built without")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_FATAL  # what matters arrives as an exception
    # How long a thread looks out for the next operator before it sleeps. Sleeping at once costs a
    # third of the time of one crop in wake-ups; looking out for long, as is the default, takes the
    # processor away from the decoder and the encoder. Versions before 2026 do not know the entry.
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    if threads is not None:
        options.intra_op_num_threads = threads
    with _cuda_libraries(wanted=provider == PROVIDERS["cuda"]) as complaints:
        try:
            session = onnxruntime.InferenceSession(
                data or str(path),
                options,
                providers=[(provider, dict(settings or {}))],
                enable_fallback=0,
            )
        except Exception as error:
            if "cannot use the" in str(error):  # of CUDA graphs, with the reason
                raise UserError(
                    f"{path}: buckets: {_reason(error)}; load it without buckets"
                ) from error
            if "Could not find an implementation" in str(error):  # e.g. of bf16 on the CPU
                raise UserError(
                    f"{path}: {provider} has no operators of its precision ({_reason(error)}); "
                    "export the pack with --precision fp32, or with --engine an engine"
                ) from error
            raise UserError(
                f"{path}: cannot be read as an ONNX model ({_reason(error)}); export the pack again"
            ) from error
    # A provider whose libraries are missing is dropped with a log line: the CPU would run instead.
    if session.get_providers()[0] != provider:
        raise _provider_error(provider, "; ".join(complaints) or "its libraries or the GPU")
    return session


@contextlib.contextmanager
def _cuda_libraries(wanted: bool) -> Iterator[list[str]]:
    """If `wanted`, load CUDA from the nvidia wheels; catch what onnxruntime prints if it cannot.

    Yields its complaints, one line each.
    """
    import onnxruntime

    if not wanted:
        yield []
        return

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if hasattr(onnxruntime, "preload_dlls"):  # 1.21
            onnxruntime.preload_dlls()
    # This logger is the whole process's and has no getter: back to onnxruntime's default after.
    onnxruntime.set_default_logger_severity(_LOG_FATAL)
    try:
        yield [line for line in printed.getvalue().splitlines() if "Failed" in line]
    finally:
        onnxruntime.set_default_logger_severity(_LOG_WARNING)


def _provider_error(provider: str, reason: str) -> UserError:
    _logger.debug("%s did not load: %s", provider, reason)
    return UserError(
        f"{provider}: did not load (missing: {reason}); check the driver with `nvidia-smi`, run "
        "`pip install 'onnxruntime-gpu[cuda,cudnn]'`, see `lmk doctor`, or use the cpu device"
    )


def _check_tensors(
    session: onnxruntime.InferenceSession, contract: Contract, path: Path | str
) -> None:
    """Raise UserError unless the graph's tensors are those its metadata promises."""
    side = contract.input_size
    inputs = {tensor.name: (tensor.type, tensor.shape[1:]) for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor.type for tensor in session.get_outputs()}
    expected_inputs = {INPUT: ("tensor(uint8)", [side, side, 3])}
    expected_outputs = {LANDMARKS: "tensor(float)", SCORES: "tensor(float)"}
    if (inputs, outputs) != (expected_inputs, expected_outputs):
        raise UserError(
            f"{path}: got tensors {inputs} -> {outputs}, expected {expected_inputs} -> "
            f"{expected_outputs}; export the pack again"
        )


def _reason(error: Exception) -> str:
    """The last part of onnxruntime's `[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : …`, one line."""
    return str(error).replace("\n", " ").split(" : ", 3)[-1].strip() or type(error).__name__


class SideBySide(Runner):
    """Gives a runner of one thread the parts of every batch, from as many threads as it takes.

    For throughput beside other work, such as decoding and encoding: threads inside an operator wait
    for each other at the end of each, and burn the time of a core that somebody else has.
    threads: None = one a core. `runner` must allow calls from several threads; it is closed with
    this one. A single crop gains nothing. A process that forks has its own threads in each half.
    """

    def __init__(self, runner: Runner, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads: got {threads}, expected 1 or more")
        self._runner, self._threads = runner, threads or os.cpu_count() or 1
        self._start()
        self.contract, self.name = runner.contract, runner.name

    def _start(self) -> None:
        self._pool, self._process = ThreadPoolExecutor(self._threads, "lmk-model"), os.getpid()

    def __call__(self, crops: Any) -> Reading:
        """See `Runner.__call__`."""
        count = min(self._threads, len(crops))
        if count < 2:
            return self._runner(crops)
        if self._process != os.getpid():  # forked: threads stay with the parent
            self._start()
        found = list(self._pool.map(self._runner, np.array_split(crops, count)))
        return np.concatenate([part[0] for part in found]), np.concatenate(
            [part[1] for part in found]
        )

    def close(self) -> None:
        """Close the runner too."""
        if self._process == os.getpid():  # a child would wait for threads that it does not have
            self._pool.shutdown()
        self._runner.close()
