"""Crops -> landmarks through ONNX Runtime, on exactly the device that was asked for."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.contract import INPUT, LANDMARKS, SCORES, Contract
from lmk.runtime.errors import UserError
from lmk.runtime.runner import Runner, check_crops

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_LOG_WARNING, _LOG_FATAL = 2, 4  # onnxruntime's own levels
_logger = logging.getLogger(__name__)


class OrtRunner(Runner):
    """An ONNX file made by `lmk export`, run by ONNX Runtime.

    device: "cpu" or "cuda". threads: CPU threads inside an operator; None = one a core.
    Raises UserError for a file that is not such a model and for a device that does not load.
    """

    def __init__(self, path: Path | str, device: str = "cpu", threads: int | None = None) -> None:
        if device not in PROVIDERS:
            raise UserError(f"device: got '{device}', expected one of {', '.join(PROVIDERS)}")
        if threads is not None and threads < 1:
            raise UserError(f"threads: got {threads}, expected 1 or more")
        provider = PROVIDERS[device]
        self._session: onnxruntime.InferenceSession | None = open_session(
            Path(path), provider, threads
        )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = Contract.from_metadata(metadata, source=str(path))
        self.name = f"onnxruntime {provider}"
        _check_tensors(self._session, self.contract, path)

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Runner.__call__`."""
        if self._session is None:
            raise ValueError("OrtRunner: called after close()")
        check_crops(crops, self.contract)
        try:
            landmarks, scores = self._session.run([LANDMARKS, SCORES], {INPUT: crops})
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UserError(
                f"{self.name}: cannot run a batch of {len(crops)} ({_reason(error)}); "
                "try a smaller batch"
            ) from error
        return landmarks, scores

    def close(self) -> None:
        """Free the session."""
        self._session = None


def open_session(path: Path, provider: str, threads: int | None) -> onnxruntime.InferenceSession:
    """A session of the file `path` whose first provider is `provider`; raises UserError."""
    import onnxruntime  # 0.2 s: not when `lmk` is imported

    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a model made by `lmk export`; name a file")
    if not path.is_file():
        raise UserError(f"{path}: got no such file, expected a model made by `lmk export`")
    if provider not in onnxruntime.get_available_providers():
        raise _provider_error(provider, f"onnxruntime {onnxruntime.__version__} was built without")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_FATAL  # what matters arrives as an exception
    # Threads that spin between operators gain nothing measurable here, and burn a third more
    # processor time: that of the decoder and the encoder beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    with _cuda_libraries(wanted=provider == PROVIDERS["cuda"]) as complaints:
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=[provider], enable_fallback=0
            )
        except Exception as error:
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
