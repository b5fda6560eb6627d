"""`CudaDevice` on cuda-core, in the device's primary context, which torch uses too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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


class PrimaryDevice:
    """GPU `index`, with CUDA graphs."""

    captures = True

    def __init__(self, index: int) -> None:
        import cuda.core
        from cuda.bindings import driver

        self._index, self._driver = index, driver
        self.library = f"cuda-core {cuda.core.__version__}"
        with self.current():
            device = cuda.core.Device(index)
            self.name = str(device.name)
            self.compute_capability = tuple(device.compute_capability)

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `CudaDevice`."""
        from cuda.core import Device

        self._call("cuInit", 0)
        before = self._call("cuCtxGetCurrent")
        try:
            Device(self._index).set_current()
            yield
        except Exception as error:
            if type(error).__name__ != "CUDAError":  # has no public address to import it from
                raise
            raise CudaError(" ".join(str(error).split())) from error
        finally:
            if int(before):
                self._call("cuCtxSetCurrent", before)

    # Not cuda-core's own memory: its pool keeps what is freed, and close() is to give it back.
    def device_memory(self, nbytes: int) -> Memory:
        """See `CudaDevice`."""
        status, pointer = self._driver.cuMemAlloc(nbytes)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfDeviceMemory(nbytes, self.memory_info()[0])
        self._check("cuMemAlloc", status)
        address = int(pointer)
        return Memory(address, nbytes, lambda: self._call("cuMemFree", address))

    def pinned_memory(self, nbytes: int) -> Memory:
        """See `CudaDevice`."""
        address = int(self._call("cuMemAllocHost", nbytes))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        array[:] = 0
        return Memory(address, nbytes, lambda: self._call("cuMemFreeHost", address), array)

    def stream(self) -> Stream:
        """See `CudaDevice`."""
        from cuda.core import Device, StreamOptions

        stream = Device(self._index).create_stream(options=StreamOptions(nonblocking=True))
        return _PrimaryStream(stream, self._call)

    def memory_info(self) -> tuple[int, int]:
        """See `CudaDevice`."""
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def view(self, array: object, stream: Stream) -> DeviceArray:
        """See `CudaDevice`."""
        from cuda.core.utils import StridedMemoryView

        seen = StridedMemoryView.from_any_interface(array, stream_ptr=stream.handle)
        if seen.device_id != self._index:
            raise ValueError(f"crops: got an array on GPU {seen.device_id}, expected {self._index}")
        shape, dtype = tuple(seen.shape), np.dtype(seen.dtype)
        dense = seen.strides is None or is_dense(shape, seen.strides)
        return DeviceArray(int(seen.ptr), shape, dtype, dense, (array, seen))

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *values = getattr(self._driver, function)(*arguments)
        self._check(function, status)
        return values[0] if len(values) == 1 else values

    def _check(self, function: str, status: Any) -> None:
        if int(status) != 0:
            raise CudaError(f"{function}: {status.name}")


class _PrimaryStream:
    """`Stream` on cuda-core."""

    def __init__(self, stream: Any, call: Callable[..., Any]) -> None:
        self._stream, self._call = stream, call
        self.handle = int(stream.handle)

    def copy(self, target: Memory, source: Memory, nbytes: int) -> None:
        """See `Stream`. CUDA itself sees which side an address is on."""
        self._call("cuMemcpyAsync", target.pointer, source.pointer, nbytes, self._stream.handle)

    def capture(self, work: Callable[[], None]) -> Graph:
        """See `Stream`."""
        builder = self._stream.create_graph_builder()
        try:
            # In this mode only this thread is held to what a capture allows: others go on.
            builder.begin_building(mode="thread_local")
            work()
            graph = builder.end_building().complete()
            return Graph(partial(graph.launch, self._stream), graph.close)
        finally:
            builder.close()

    def sync(self) -> None:
        """See `Stream`."""
        self._stream.sync()

    def close(self) -> None:
        """See `Stream`."""
        self._stream.close()
