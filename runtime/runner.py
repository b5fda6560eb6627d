"""The contract of whatever runs a model: crops in, landmarks and scores out."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.contract import Contract


class Runner(Protocol):
    """Runs one exported model. Also a context manager that closes itself.

    contract: what the file promises. name: engine and device, for reports
    ("onnxruntime CPUExecutionProvider").
    """

    contract: Contract
    name: str

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run crops uint8 (B,S,S,3) RGB, S = contract.input_size, any B.

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_crops(crops: NDArray[np.uint8], contract: Contract) -> None:
    """Raise ValueError unless `crops` is a uint8 array of the contract's (B,S,S,3)."""
    side = contract.input_size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (side, side, 3):
        raise ValueError(
            f"crops: got {crops.dtype} {crops.shape}, expected uint8 (B, {side}, {side}, 3)"
        )
