"""A stand-in for a GPU, with the interface of `lmk.runtime.runners.gpu`."""

import contextlib
import ctypes
import dataclasses
from functools import partial

import numpy as np

from lmk.runtime.runners.gpu import Memory, OutOfDeviceMemory


class FakeCuda:
    """A GPU whose memory is NumPy's and whose queues run only when they are waited for.

    `live` holds the addresses of all that is not yet freed.
    """

    name, compute_capability, library, captures = "Fake GPU", (8, 6), "fake-core 1.0", True

    def __init__(self) -> None:
        self.live: dict[int, np.ndarray] = {}
        self.limit = 1 << 40  # bytes in one block
        self.fault: Exception | None = None  # what every wait raises
        self.captured = 0

    def current(self):
        return contextlib.nullcontext()

    def device_memory(self, nbytes):
        if nbytes > self.limit:
            raise OutOfDeviceMemory(nbytes, self.limit)
        block = np.full(nbytes, 77, np.uint8)
        address = block.ctypes.data
        self.live[address] = block
        return Memory(address, nbytes, partial(self.live.pop, address))

    def pinned_memory(self, nbytes):
        memory = self.device_memory(nbytes)
        return dataclasses.replace(memory, array=self.live[memory.pointer])

    def stream(self):
        return FakeStream(self)

    def memory_info(self):
        return self.limit, self.limit

    def view(self, array, stream):
        return array.view


class FakeStream:
    def __init__(self, cuda) -> None:
        self.cuda, self.queue, self.handle = cuda, [], id(self)
        cuda.live[self.handle] = self

    def copy(self, target, source, nbytes):
        self.queue.append(lambda: ctypes.memmove(target.pointer, source.pointer, nbytes))

    def capture(self, work):
        kept, self.queue = self.queue, []
        try:
            work()
            graph = FakeGraph(self, self.queue)
        finally:
            self.queue = kept
        self.cuda.captured += 1
        return graph

    def sync(self):
        queue, self.queue = self.queue, []
        if self.cuda.fault:
            raise self.cuda.fault
        for work in queue:
            work()

    def close(self):
        del self.cuda.live[self.handle]


class FakeGraph:
    def __init__(self, stream, works) -> None:
        self.stream, self.works = stream, works
        stream.cuda.live[id(self)] = self

    def launch(self):
        self.stream.queue += self.works

    def close(self):
        del self.stream.cuda.live[id(self)]
