"""`CudaDevice` on PyCUDA, also inside a context that the host application owns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lmk.runtime.runners.gpu import (
    CudaError,
    DeviceArray,
    Graph,
    Memory,
    OutOfDeviceMemory,
    Stream,
    is_dense,
)

_NONBLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream


class HostedDevice:
    """The GPU of the context that is current in this thread; GPU `index` if there is none."""

    captures = False  # PyCUDA has no stream capture

    def __init__(self, index: int) -> None:
        import pycuda
        import pycuda.driver as driver

        driver.init()
        self._driver = driver
        self._context = driver.Context.get_current()
        if self._context is None:
            self._context = driver.Device(index).retain_primary_context()
        self.library = f"pycuda {pycuda.VERSION_TEXT}"
        with self.current():
            device = driver.Context.get_device()
            self.name = str(device.name())
            self.compute_capability = tuple(device.compute_capability())

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `CudaDevice`."""
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise CudaError(" ".join(str(error).split())) from error
        finally:
            self._driver.Context.pop()

    def device_memory(self, nbytes: int) -> Memory:
        """See `CudaDevice`."""
        try:
            block = self._driver.mem_alloc(nbytes)
        except self._driver.MemoryError as error:
            raise OutOfDeviceMemory(nbytes, self.memory_info()[0]) from error
        return Memory(int(block), nbytes, block.free)

    def pinned_memory(self, nbytes: int) -> Memory:
        """See `CudaDevice`."""
        array = self._driver.pagelocked_empty(nbytes, np.uint8)
        array[:] = 0
        return Memory(array.ctypes.data, nbytes, array.base.free, array)

    def stream(self) -> Stream:
        """See `CudaDevice`."""
        return _HostedStream(self._driver)

    def memory_info(self) -> tuple[int, int]:
        """See `CudaDevice`."""
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def view(self, array: object, stream: Stream) -> DeviceArray:
        """See `CudaDevice`. Waits for all work of the context: PyCUDA joins no other's stream."""
        found = read_interface(array)
        self._driver.Context.synchronize()
        return found


def read_interface(array: object) -> DeviceArray:
    """Read `__cuda_array_interface__`, version 2 or 3; raises ValueError without one."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise ValueError(
            f"crops: got {type(array).__name__} in device memory, expected one with "
            "__cuda_array_interface__, which is what PyCUDA understands"
        )
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")  # in bytes; None for C order
    dense = strides is None or is_dense(shape, tuple(step // dtype.itemsize for step in strides))
    return DeviceArray(int(interface["data"][0]), shape, dtype, dense, array)


class _HostedStream:
    """`Stream` on PyCUDA."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._stream: Any = driver.Stream(_NONBLOCKING)
        self.handle = int(self._stream.handle)

    def copy(self, target: Memory, source: Memory, nbytes: int) -> None:
        """See `Stream`."""
        if source.array is not None:
            self._driver.memcpy_htod_async(target.pointer, source.array[:nbytes], self._stream)
        elif target.array is not None:
            self._driver.memcpy_dtoh_async(target.array[:nbytes], source.pointer, self._stream)
        else:
            self._driver.memcpy_dtod_async(target.pointer, source.pointer, nbytes, self._stream)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Raise CudaError: PyCUDA has no stream capture."""
        raise CudaError("pycuda cannot capture CUDA graphs; enqueue the work instead")

    def sync(self) -> None:
        """See `Stream`."""
        self._stream.synchronize()

    def close(self) -> None:
        """See `Stream`."""
        self._stream = None  # PyCUDA destroys it with its last reference
