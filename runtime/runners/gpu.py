"""The small part of CUDA that a runner needs; LMK_CUDA says through which library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_DLPACK_CUDA, _DLPACK_MANAGED = 2, 13  # kDLCUDA, kDLCUDAManaged


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    name: str
    capability: tuple[int, int]  # compute capability: (9, 0) is Hopper
    memory_mib: int | None = None  # these two only nvidia-smi tells
    driver: str | None = None

    def __str__(self) -> str:
        words = [self.name, f"compute capability {capability_text(self.capability)}"]
        words += [f"{self.memory_mib} MiB"] if self.memory_mib is not None else []
        return ", ".join([*words, f"driver {self.driver}"] if self.driver else words)


class CudaError(Exception):
    """CUDA refused a call."""


class OutOfDeviceMemory(CudaError):
    """There is not enough device memory; `needed` and `free` are bytes."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"out of device memory: needed {needed} bytes, {free} are free")
        self.needed, self.free = needed, free


@dataclass
class Memory:
    """A block of device memory, or of pinned host memory, at a fixed address."""

    pointer: int
    nbytes: int
    release: Callable[[], None] | None = None  # None: somebody else's
    array: NDArray[np.uint8] | None = None  # the same bytes, (nbytes,); None for device memory

    def close(self) -> None:
        """Give it back; the device must be current. A second call does nothing."""
        release, self.release, self.array = self.release, None, None
        if release is not None:
            release()


@dataclass(frozen=True)
class DeviceArray:
    """Somebody else's array in device memory; `owner` keeps it alive."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    contiguous: bool  # in C order
    owner: object


@dataclass(frozen=True)
class Graph:
    """Captured work that is launched again in one call."""

    launch: Callable[[], None]  # enqueues it on the stream it was captured on
    close: Callable[[], None]  # frees it; its last launch must have finished


class Stream(Protocol):
    """A queue of work. Calls that enqueue return at once; `sync` waits."""

    handle: int

    def copy(self, target: Memory, source: Memory, nbytes: int) -> None:
        """Enqueue a copy of the first `nbytes` bytes; at least one side is device memory."""

    def capture(self, work: Callable[[], None]) -> Graph:
        """Make a graph of what `work` enqueues on this stream, without running it."""

    def sync(self) -> None:
        """Wait for everything enqueued; raises CudaError if any of it failed."""

    def close(self) -> None:
        """Free the stream."""


class CudaDevice(Protocol):
    """One GPU. All but the attributes needs `with device.current():`, in each thread."""

    name: str
    compute_capability: tuple[int, int]
    library: str  # "cuda-core 1.2.2"
    captures: bool  # whether `Stream.capture` is there

    def current(self) -> AbstractContextManager[None]:
        """Make its context this thread's; afterwards what was current is so again.

        Errors of the library come out of it as CudaError.
        """

    def device_memory(self, nbytes: int) -> Memory:
        """Allocate; raises OutOfDeviceMemory."""

    def pinned_memory(self, nbytes: int) -> Memory:
        """Allocate host memory, zeroed, that the device copies from and to by itself."""

    def stream(self) -> Stream:
        """Make a stream that does not wait for the default one."""

    def memory_info(self) -> tuple[int, int]:
        """Bytes of device memory: free, total."""

    def view(self, array: object, stream: Stream) -> DeviceArray:
        """Read where a device array lies; `stream` waits for the work that still writes it."""


def is_on_device(array: object) -> bool:
    """Whether `array` says that it lies in CUDA memory, by DLPack or __cuda_array_interface__."""
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) in (_DLPACK_CUDA, _DLPACK_MANAGED)
    return hasattr(array, "__cuda_array_interface__")


def check_dense(array: DeviceArray) -> None:
    """Raise ValueError unless the crops lie one after the other, in C order."""
    if not array.contiguous:
        raise ValueError("crops: got an array with gaps or in another order, expected C order")


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether `strides`, in elements, are those of an array of that shape in C order."""
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True


def parse_capability(text: str) -> tuple[int, int]:
    """Compute capability of `8.6` or of TensorRT's `SM86`; raises ValueError."""
    digits = text.removeprefix("SM")
    major, minor = digits.split(".") if "." in digits else (digits[:-1], digits[-1:])
    return int(major), int(minor)


def capability_text(capability: Sequence[int]) -> str:
    """(8, 6) as `8.6`."""
    return ".".join(map(str, capability))
