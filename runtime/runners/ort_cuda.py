"""Crops -> landmarks through ONNX Runtime with inputs and outputs that stay where they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.model import INPUT, LANDMARKS, SCORES, Contract, Reading
from lmk.runtime.runners.gpu import CudaDevice, DeviceArray, check_dense
from lmk.runtime.runners.gpu_open import open_device
from lmk.runtime.runners.runner import run_batches

if TYPE_CHECKING:
    import onnxruntime

_GRAPH_ID = "gpu_graph_id"  # of a run: which CUDA graph it captures or launches
_NO_GRAPH = "-1"


class BoundSession:
    """A session with buffers on its device, at fixed addresses for each bucket.

    device: ONNX Runtime's name of it, "cuda" or "cpu". On cuda, where the session was opened for
    CUDA graphs, each bucket is captured in its first run. May be called from several threads,
    which take turns: ONNX Runtime launches no two graphs of a session at once.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        contract: Contract,
        buckets: Sequence[int] = (),
        device: str = "cuda",
    ) -> None:
        self._session, self._contract, self._device = session, contract, device
        self._buckets = tuple(sorted(buckets))
        self._bound: dict[int, _Bucket] = {}
        self._turn = threading.Lock()

    def run(self, crops: NDArray[np.uint8]) -> Reading:
        """Run crops uint8 (B,S,S,3) in host memory, cut and padded to the buckets."""
        with self._turn:
            return run_batches(
                len(crops),
                self._contract.num_landmarks,
                self._buckets,
                lambda start, stop, bucket: self._bucket(bucket).run(crops[start:stop]),
            )

    def run_view(self, crops: DeviceArray) -> Reading:
        """Run crops (B,S,S,3) in device memory as they lie there, without a graph, any B.

        What writes them must have finished.
        """
        binding = self._session.io_binding()
        binding.bind_input(INPUT, self._device, 0, np.uint8, crops.shape, crops.pointer)
        binding.bind_output(LANDMARKS)
        binding.bind_output(SCORES)
        self._session.run_with_iobinding(binding, _options(_NO_GRAPH))
        landmarks, scores = binding.copy_outputs_to_cpu()
        return landmarks, scores

    def _bucket(self, bucket: int) -> _Bucket:
        if bucket not in self._bound:
            graph_id = str(self._buckets.index(bucket) + 1)  # 0 stands for a run that names none
            self._bound[bucket] = _Bucket(
                self._session, self._contract, bucket, self._device, graph_id
            )
        return self._bound[bucket]


class _Bucket:
    """The buffers of one batch size, bound."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        contract: Contract,
        bucket: int,
        device: str,
        graph_id: str,
    ) -> None:
        import onnxruntime

        side, count = contract.input_size, contract.num_landmarks
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._session, self._options = session, _options(graph_id)
        self._padded = np.zeros((bucket, side, side, 3), np.uint8)
        self._image = make(self._padded.shape, np.uint8, device, 0)
        self._landmarks = make((bucket, count, 2), np.float32, device, 0)
        self._scores = make((bucket, count), np.float32, device, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._image)
        self._binding.bind_ortvalue_output(LANDMARKS, self._landmarks)
        self._binding.bind_ortvalue_output(SCORES, self._scores)

    def run(self, crops: NDArray[np.uint8]) -> Reading:
        """Run at most a bucket of crops; what pads them is of earlier runs."""
        count = len(crops)
        self._padded[:count] = crops
        self._image.update_inplace(self._padded)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return self._landmarks.numpy()[:count], self._scores.numpy()[:count]


def _options(graph_id: str) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_GRAPH_ID, graph_id)
    return options


class Producer:
    """Whoever writes crops in device memory: waited for, since ONNX Runtime's stream is its own."""

    def __init__(self) -> None:
        self._device: CudaDevice | None = None
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def finished(self, crops: Any) -> Iterator[DeviceArray]:
        """Where `crops` lie, when all work on them has ended; raises ValueError for gaps."""
        with self._turn:
            if self._device is None:
                self._device = open_device()
        with self._device.current():
            stream = self._device.stream()
            try:
                view = self._device.view(crops, stream)
                stream.sync()
            finally:
                stream.close()
            check_dense(view)
            yield view
