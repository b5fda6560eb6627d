"""What one call needs for itself: a stream, and buffers, a context and graphs for each bucket."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.model import INPUT, LANDMARKS, SCORES, Contract, Reading
from lmk.runtime.runners.gpu import (
    CudaDevice,
    DeviceArray,
    Graph,
    Memory,
    OutOfDeviceMemory,
    check_dense,
    is_on_device,
)
from lmk.runtime.runners.runner import check_crops, host_array
from lmk.runtime.runners.trt_engine import Plan

_ALIGNMENT = 256  # bytes; what TensorRT asks of its scratch memory


class Lane:
    """A stream and the steps that run on it, for one thread at a time.

    Everything here needs `with cuda.current():`.
    """

    def __init__(self, cuda: CudaDevice, plan: Plan, use_graphs: bool) -> None:
        self._cuda, self._plan, self._use_graphs = cuda, plan, use_graphs
        self.stream = cuda.stream()
        self._steps: dict[int, Step] = {}

    def open(self, crops: Any, contract: Contract) -> NDArray[np.uint8] | DeviceArray:
        """`crops`, from wherever they are, without a copy; raises ValueError for other arrays."""
        if not is_on_device(crops):
            array = host_array(crops)
            check_crops(array, contract)
            return array
        view = self._cuda.view(crops, self.stream)
        check_crops(view, contract)
        check_dense(view)
        return view

    def run(
        self, crops: NDArray[np.uint8] | DeviceArray, start: int, stop: int, bucket: int
    ) -> Reading:
        """Run crops[start:stop], padded to `bucket`, and wait for what is found.

        Raises CudaError, and UserError when there is no memory for such a bucket.
        """
        if bucket not in self._steps:
            try:
                self._steps[bucket] = Step(self._cuda, self._plan, self, bucket)
            except OutOfDeviceMemory as error:
                raise UserError(
                    f"{self._plan.path}: out of device memory: a batch of {bucket} needs "
                    f"{error.needed / 2**20:.1f} MiB, {error.free / 2**20:.1f} MiB are free; run "
                    "smaller batches, or export the engine with a smaller one in --batches"
                ) from error
        return self._steps[bucket].run(crops, start, stop)

    @property
    def use_graphs(self) -> bool:
        """Whether steps are captured."""
        return self._use_graphs

    def drop_graphs(self) -> None:
        """Forget what was captured: the next run captures anew."""
        for step in self._steps.values():
            step.drop_graphs()

    def close(self) -> None:
        """Free everything. A GPU that is lost refuses even that, and has lost the memory too."""
        with ExitStack() as stack, suppress(Exception):
            stack.callback(_quietly, self.stream.close)
            for step in self._steps.values():
                stack.callback(_quietly, step.close)
            self.stream.sync()  # nothing that still runs may lose its memory


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a block of memory."""

    offset: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: type


class Step:
    """One batch bucket: copy in, run, copy out, always at the same addresses."""

    def __init__(self, cuda: CudaDevice, plan: Plan, lane: Lane, bucket: int) -> None:
        self._plan, self._lane, self._stream = plan, lane, lane.stream
        self._graphs: dict[bool, Graph] = {}
        profile = plan.info.recipe.batches.index(bucket)
        self._places, nbytes = _layout(bucket, plan.info.contract)
        with ExitStack() as stack:
            self._host = cuda.pinned_memory(nbytes)
            stack.callback(self._host.close)
            # One block, so that what a bucket needs is one number.
            self._device = cuda.device_memory(nbytes + plan.scratch_bytes(profile))
            stack.callback(self._device.close)
            addresses = {
                name: self._device.pointer + place.offset for name, place in self._places.items()
            }
            scratch = Memory(self._device.pointer + nbytes, self._device.nbytes - nbytes)
            self._context = plan.context(profile, addresses, scratch, self._stream)
            self._resources = stack.pop_all()

    def run(self, crops: NDArray[np.uint8] | DeviceArray, start: int, stop: int) -> Reading:
        """Run crops[start:stop], at most a bucket of them; what pads them is of earlier runs."""
        count = stop - start
        place = self._places[INPUT]
        crop_bytes = place.nbytes // place.shape[0]
        if isinstance(crops, DeviceArray):
            source = Memory(crops.pointer + start * crop_bytes, count * crop_bytes)
            self._stream.copy(self._part(self._device, INPUT), source, source.nbytes)
            self._launch(copy_in=False)
        else:
            self._array(INPUT)[:count] = crops[start:stop]
            self._launch(copy_in=True)
        self._stream.sync()
        return self._array(LANDMARKS)[:count].copy(), self._array(SCORES)[:count].copy()

    def drop_graphs(self) -> None:
        """Forget what was captured."""
        graphs, self._graphs = self._graphs, {}
        for graph in graphs.values():
            graph.close()

    def close(self) -> None:
        """Free graphs, context and memory, in that order."""
        with self._resources:
            self._context = None
            self.drop_graphs()

    def _launch(self, copy_in: bool) -> None:
        if not self._lane.use_graphs:
            return self._enqueue(copy_in)
        if copy_in not in self._graphs:
            # A context's first run allocates and compiles, which must not happen in a capture.
            self._enqueue(copy_in)
            self._stream.sync()
            self._plan.check_capturable(self._context, self._stream)
            self._graphs[copy_in] = self._stream.capture(partial(self._enqueue, copy_in))
        self._graphs[copy_in].launch()

    def _enqueue(self, copy_in: bool) -> None:
        if copy_in:
            target, source = self._part(self._device, INPUT), self._part(self._host, INPUT)
            self._stream.copy(target, source, target.nbytes)
        self._plan.enqueue(self._context, self._stream)
        for name in (LANDMARKS, SCORES):
            target, source = self._part(self._host, name), self._part(self._device, name)
            self._stream.copy(target, source, target.nbytes)

    def _part(self, block: Memory, name: str) -> Memory:
        place = self._places[name]
        part = slice(place.offset, place.offset + place.nbytes)
        array = None if block.array is None else block.array[part]
        return Memory(block.pointer + place.offset, place.nbytes, array=array)

    def _array(self, name: str) -> NDArray[Any]:
        """The tensor in pinned memory."""
        place, array = self._places[name], self._part(self._host, name).array
        assert array is not None
        return array.view(place.dtype).reshape(place.shape)


def _layout(bucket: int, contract: Contract) -> tuple[dict[str, _Place], int]:
    """The tensors one after the other in a block, and its length in bytes."""
    side, count = contract.input_size, contract.num_landmarks
    tensors: dict[str, tuple[tuple[int, ...], type]] = {
        INPUT: ((bucket, side, side, 3), np.uint8),
        LANDMARKS: ((bucket, count, 2), np.float32),
        SCORES: ((bucket, count), np.float32),
    }
    places, offset = {}, 0
    for name, (shape, dtype) in tensors.items():
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        places[name] = _Place(offset, nbytes, shape, dtype)
        offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
    return places, offset


def _quietly(close: Callable[[], None]) -> None:
    with suppress(Exception):
        close()
