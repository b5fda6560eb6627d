"""The contract of whatever runs a model: crops in, landmarks and scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.model import Contract, Reading


class Runner(Protocol):
    """Runs one exported model. Also a context manager that closes itself.

    contract: what the file promises. name: engine and device, for reports
    ("onnxruntime CPUExecutionProvider").
    """

    contract: Contract
    name: str

    def __call__(self, crops: Any) -> Reading:
        """Run crops uint8 (B,S,S,3) RGB, S = contract.input_size, any B, of NumPy or with DLPack.

        Returns landmarks float32 (B,K,2), (x, y) in crop pixels, and scores float32 (B,K) in
        [0, 1]; the caller owns both. Raises ValueError for a wrong dtype or shape, UserError when
        the machine cannot run the batch.
        """
        ...

    def close(self) -> None:
        """Free the model; the runner cannot be called afterwards."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class HasShape(Protocol):
    """Any array: of NumPy, or a view of one in device memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def check_crops(crops: HasShape, contract: Contract) -> None:
    """Raise ValueError unless `crops` is a uint8 array of the contract's (B,S,S,3)."""
    side = contract.input_size
    if crops.dtype != np.uint8 or len(crops.shape) != 4 or crops.shape[1:] != (side, side, 3):
        raise ValueError(
            f"crops: got {crops.dtype} {crops.shape}, expected uint8 (B, {side}, {side}, 3)"
        )


def host_array(crops: Any) -> NDArray[Any]:
    """`crops` for NumPy, without a copy: itself, or what shares its host memory by DLPack."""
    if isinstance(crops, np.ndarray):
        return crops
    if not hasattr(crops, "__dlpack__"):
        raise ValueError(
            f"crops: got {type(crops).__name__}, expected an array: NumPy's, or one with DLPack "
            "or __cuda_array_interface__"
        )
    return np.from_dlpack(crops)


def batches(count: int, buckets: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut `count` crops into runs of fixed batch sizes: (start, stop, bucket), in order.

    A run takes up to `bucket` crops, one of `buckets`; the rest of it is padding, and never more
    than half unless the smallest bucket is larger than what is left.
    """
    sizes = sorted(buckets)
    start = 0
    while start < count:
        left = count - start
        fitting = min((size for size in sizes if size >= left), default=None)
        if fitting is None or sizes[0] < fitting >= 2 * left:
            fitting = max(size for size in sizes if size <= left)
        stop = min(start + fitting, count)
        yield start, stop, fitting
        start = stop


def run_batches(
    count: int,
    num_landmarks: int,
    buckets: Sequence[int],
    run: Callable[[int, int, int], Reading],
) -> Reading:
    """What `run` finds in `count` crops, called with (start, stop, bucket) of each of `batches`."""
    landmarks = np.empty((count, num_landmarks, 2), np.float32)
    scores = np.empty((count, num_landmarks), np.float32)
    for start, stop, bucket in batches(count, buckets):
        landmarks[start:stop], scores[start:stop] = run(start, stop, bucket)
    return landmarks, scores
