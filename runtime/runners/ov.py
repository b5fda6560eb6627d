"""Crops -> landmarks through OpenVINO, on this machine's processor."""

from __future__ import annotations

import logging
import platform
import re
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError, install_line
from lmk.runtime.model import (
    INPUT,
    LANDMARKS,
    SCORES,
    Contract,
    Precision,
    Reading,
    probe_crops,
    read_model,
    run_onnx,
)
from lmk.runtime.runners.runner import Runner, check_crops, host_array, run_batches

# A graph of a fixed batch takes a third less time for one crop than a graph of any batch, which is
# laid out anew in every call. OpenVINO 2026.4 also gets the scales of int8 wrong in the latter: it
# multiplies that of a convolution into the batch-norm behind it, though a concatenation reads the
# convolution too.
BUCKETS = (1, 2, 4, 8, 16)
# What is computed in, by the precision of the file. Weights of fp16 and int8 are as the file has
# them; what int8 does not quantise stays float32: in bfloat16 the file's drift report would not
# hold.
_COMPUTES_IN: dict[Precision, str] = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
# Pixels on average from ONNX Runtime, which rounds elsewhere: 0.4 on the textures that it is tried
# on, which are not what the scales were made for. Wrong scales move landmarks by 10.
_INT8_LIMIT_PX = 2.0
# An x86 processor without these adds pairs of 8-bit products in 16 bits, which overflow: landmarks
# of the categories that ship move by half a pixel, those of other weights by 6. Such a processor
# computes the file in float32 instead, weights and inputs rounded as the file says.
_EXACT_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8"}
_logger = logging.getLogger(__name__)


class OpenVinoRunner(Runner):
    """An ONNX file made by `lmk export`, run by OpenVINO on the CPU.

    threads: CPU threads; None = one a core. buckets: the batch sizes to compile for, each on its
    first use, to which batches are cut and padded. bf16 is for processors that compute in it; int8
    is computed in float32, with a warning, by those whose 8-bit sums overflow. May be called from
    several threads, which take turns. Raises UserError for a file that is not such
    a model or of a precision that does not run here.
    """

    def __init__(
        self, path: Path | str, threads: int | None = None, buckets: Sequence[int] = BUCKETS
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads: got {threads}, expected 1 or more")
        if not buckets or min(buckets) < 1:
            raise UserError(f"buckets: got {list(buckets)}, expected batch sizes of 1 or more")
        path = Path(path)
        core = _open_core()
        data, self.contract = read_model(path)
        precision = self.contract.precision
        _check_precision(core, precision, path)
        self._core, self._buckets = core, tuple(sorted(buckets))
        self._options = {
            "INFERENCE_PRECISION_HINT": _COMPUTES_IN[precision],
            "PERFORMANCE_HINT": "LATENCY",
        } | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        self._model = _read(core, path, self.contract)
        self._bound: dict[int, _Compiled] = {}
        self._turn = threading.Lock()
        self.name = f"OpenVINO {_version()} CPU, {_COMPUTES_IN[precision]}"
        if precision == "int8":
            if adds_int8_exactly(cpu_flags()):
                self.name = self.name.replace("f32", "int8 and f32")
            else:
                self._options["LP_TRANSFORMS_MODE"] = "NO"
                _logger.warning(
                    "%s: this processor has no VNNI, so its sums of 8-bit products overflow: the "
                    "file is computed in float32, as fast as one exported in fp32",
                    path,
                )
            self._check_int8(path, data)

    def __call__(self, crops: Any) -> Reading:
        """See `Runner.__call__`."""
        if self._model is None:
            raise ValueError("OpenVinoRunner: called after close()")
        array = host_array(crops)
        check_crops(array, self.contract)
        with self._turn:
            return run_batches(
                len(array),
                self.contract.num_landmarks,
                self._buckets,
                lambda start, stop, size: self._bucket(size).run(array[start:stop]),
            )

    def close(self) -> None:
        """Free the compiled graphs."""
        self._bound.clear()
        self._model = None

    def _bucket(self, size: int) -> _Compiled:
        if size not in self._bound:
            side = self.contract.input_size
            try:
                self._model.reshape({INPUT: [size, side, side, 3]})
                compiled = self._core.compile_model(self._model, "CPU", self._options)
                self._bound[size] = _Compiled(compiled, (size, side, side, 3))
            except RuntimeError as error:
                raise UserError(
                    f"{self.name}: cannot be compiled for a batch of {size} ({_reason(error)}); "
                    "use the cpu device, which is ONNX Runtime"
                ) from error
        return self._bound[size]

    def _check_int8(self, path: Path, data: bytes) -> None:
        """Raise UserError unless int8 is here about what it is in ONNX Runtime; see BUCKETS."""
        crops = probe_crops(self.contract.input_size)
        expected, _ = run_onnx(data, crops)
        found, _ = self(crops)
        drift = float(np.linalg.norm(found - expected, axis=2).mean())
        if not drift <= _INT8_LIMIT_PX:  # this way round NaN is beyond it
            raise UserError(
                f"{path}: got landmarks {drift:.2g} px from those of ONNX Runtime in {self.name}, "
                f"expected at most {_INT8_LIMIT_PX}; export the pack in fp32 or bf16, or use the "
                "cpu device"
            )


class _Compiled:
    """A graph compiled for one batch size, and its input buffer."""

    def __init__(self, compiled: Any, shape: tuple[int, ...]) -> None:
        from openvino import Tensor

        self._padded = np.zeros(shape, np.uint8)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(Tensor(self._padded, shared_memory=True))

    def run(self, crops: NDArray[np.uint8]) -> Reading:
        """Run at most a bucket of crops; what pads them is of earlier runs."""
        count = len(crops)
        self._padded[:count] = crops
        self._request.infer()
        landmarks, scores = (self._request.get_tensor(name).data for name in (LANDMARKS, SCORES))
        return landmarks[:count], scores[:count]


def adds_int8_exactly(flags: Collection[str]) -> bool:
    """Whether a processor of this kind with `flags` adds 8-bit products without overflow."""
    return platform.machine() not in ("x86_64", "AMD64") or not _EXACT_INT8.isdisjoint(flags)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instructions that this processor has, in Linux's words; elsewhere none."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    found = re.search(
        r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE
    )  # x86's word, ARM's word
    return frozenset(found[1].split()) if found else frozenset()


def _open_core() -> Any:
    """OpenVINO; raises UserError where it is not installed or has no CPU."""
    # OpenVINO's converters, which it imports and we do not use, write a number of this machine into
    # the home folder with this package, and do without where it is not installed.
    hidden = sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        from openvino import Core  # 0.3 s
    except ImportError as error:
        raise UserError(
            f"openvino: does not import ({_reason(error)}), needed for the openvino device; "
            f"{install_line('openvino')}, or use the cpu device"
        ) from error
    finally:
        if hidden is None:
            del sys.modules["openvino_telemetry"]
    return Core()


def _version() -> str:
    from openvino import get_version

    return str(get_version()).split("-")[0]


def _check_precision(core: Any, precision: Precision, path: Path) -> None:
    """Raise UserError unless this processor computes in the file's precision."""
    if precision not in _COMPUTES_IN:
        raise UserError(
            f"{path}: got {precision}, expected {', '.join(_COMPUTES_IN)} on the openvino device; "
            "export the pack in one of these"
        )
    has = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in has:  # it would be float32, and no faster
        raise UserError(
            f"{path}: got bf16, in which this processor does not compute; export the pack with "
            "--precision int8 or fp32"
        )


def _read(core: Any, path: Path, contract: Contract) -> Any:
    """The graph of `path`; raises UserError unless its tensors are those of `contract`."""
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        raise UserError(
            f"{path}: cannot be read as an ONNX model ({_reason(error)}); export the pack again"
        ) from error
    side, count = contract.input_size, contract.num_landmarks
    expected = (
        {INPUT: f"u8 [?,{side},{side},3]"},
        {
            LANDMARKS: f"f32 [?,{count},2]",
            SCORES: f"f32 [?,{count}]",
        },
    )
    found = _tensors(model.inputs), _tensors(model.outputs)
    if found != expected:
        raise UserError(
            f"{path}: got tensors {found[0]} -> {found[1]}, expected {expected[0]} -> "
            f"{expected[1]}; export the pack again"
        )
    return model


def _tensors(ports: Sequence[Any]) -> dict[str, str]:
    """Name -> element type and shape."""
    kinds = ((p, p.get_element_type().get_type_name(), p.get_partial_shape()) for p in ports)
    return {port.get_any_name(): f"{kind} {shape}" for port, kind, shape in kinds}


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message, which begins with places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
