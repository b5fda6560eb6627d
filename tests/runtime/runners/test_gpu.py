"""What of the CUDA interface needs no GPU: arrays of others, contexts of others, and messages."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lmk.runtime.errors import UserError
from lmk.runtime.runners import gpu, gpu_open
from lmk.runtime.runners.gpu import (
    CudaError,
    OutOfDeviceMemory,
    is_dense,
    is_on_device,
    parse_capability,
)
from lmk.runtime.runners.gpu_open import open_device
from lmk.runtime.runners.gpu_pycuda import HostedDevice, read_interface


def test_library_that_is_not_known(monkeypatch):
    monkeypatch.setenv("LMK_CUDA", "cupy")
    with pytest.raises(UserError, match="LMK_CUDA: got 'cupy', expected cuda-core or pycuda"):
        open_device()


@pytest.mark.parametrize(
    ("name", "module", "cure"),
    [
        ("cuda-core", "cuda.core", "cuda-core cuda-bindings"),
        ("cuda-core", "cuda.bindings", "cuda-core cuda-bindings"),
        ("pycuda", "pycuda", "pycuda"),
    ],
)
def test_library_that_is_missing(monkeypatch, name, module, cure):
    monkeypatch.setenv("LMK_CUDA", name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{name}: cannot be imported .*; pip install {cure}$"):
        open_device()


def test_machine_without_a_gpu(monkeypatch):
    monkeypatch.delenv("LMK_CUDA", raising=False)
    pytest.importorskip("cuda.core")
    try:
        open_device()
    except UserError as error:
        message = str(error)
    else:
        pytest.skip("this machine has a GPU")
    assert message.startswith("cuda device 0: got '")
    assert "nvidia-smi" in message and "use the cpu device" in message


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4)), st.permutations(range(4)))
def test_dense_is_what_numpy_calls_contiguous(array, order):
    for view in (array, array[::2], array.transpose([axis for axis in order if axis < array.ndim])):
        assert is_dense(view.shape, view.strides) == view.flags.c_contiguous


class Device:
    """An array of others: all that they say of it."""

    def __init__(self, **interface):
        self.__cuda_array_interface__ = interface


def test_array_interface():
    dense = Device(shape=(2, 3), typestr="|u1", data=(4096, False), version=3, strides=None)
    view = read_interface(dense)
    assert (view.pointer, view.shape, view.dtype) == (4096, (2, 3), np.uint8)
    assert view.contiguous and view.owner is dense
    floats = Device(shape=(2, 3), typestr="<f4", data=(8, True), version=2, strides=(24, 8))
    assert read_interface(floats).dtype == np.float32
    assert not read_interface(floats).contiguous
    with pytest.raises(ValueError, match="got list in device memory, expected one with __cuda"):
        read_interface([])


def test_where_an_array_lies():
    assert not is_on_device(np.zeros(2)) and not is_on_device([0])
    assert is_on_device(Device(shape=()))
    assert is_on_device(SimpleNamespace(__dlpack_device__=lambda: (2, 0)))
    assert not is_on_device(SimpleNamespace(__dlpack_device__=lambda: (1, 0)))


def test_describe_says_what_is_missing():
    device = SimpleNamespace(name="H", compute_capability=(9, 0), library="pycuda 1", captures=0)
    assert gpu_open.describe(device) == (
        "H (compute capability 9.0) through pycuda 1, without CUDA graphs"
    )


class FakeDriver:
    """As much of pycuda.driver as is used; `calls` is what was asked of it."""

    Error, MemoryError = type("Error", (Exception,), {}), type("MemoryError", (Exception,), {})

    def __init__(self, current):
        self.calls, self.depth = [], 0
        device = SimpleNamespace(name=lambda: "Host's", compute_capability=lambda: (8, 0))
        self.context = SimpleNamespace(push=lambda: self.turn(1))
        self.Context = SimpleNamespace(
            get_current=lambda: self.context if current else None,
            get_device=lambda: device,
            pop=lambda: self.turn(-1),
            synchronize=lambda: self.calls.append("synchronize"),
        )
        self.Device = lambda index: SimpleNamespace(
            retain_primary_context=lambda: self.calls.append("primary") or self.context
        )

    def turn(self, step):
        self.depth += step

    def init(self):
        self.calls.append("init")

    def mem_alloc(self, nbytes):
        if nbytes > 100:
            raise self.MemoryError("cuMemAlloc failed")
        return type("Block", (), {"__int__": lambda _: 512, "free": lambda _: self.turn(0)})()

    def mem_get_info(self):
        return 90, 100

    def Stream(self, flags):  # noqa: N802
        return SimpleNamespace(handle=flags)

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments[:2]))


@pytest.fixture
def hosted(monkeypatch):
    """Return a function that opens a device on a stand-in for PyCUDA."""

    def make(current=True):
        driver = FakeDriver(current)
        module = SimpleNamespace(VERSION_TEXT="2025.1", driver=driver)
        monkeypatch.setitem(sys.modules, "pycuda", module)
        monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
        return HostedDevice(0), driver

    return make


@pytest.mark.parametrize("current", [True, False])
def test_works_in_the_hosts_context(hosted, current):
    device, driver = hosted(current)
    assert ("primary" in driver.calls) != current
    assert (device.name, device.compute_capability) == ("Host's", (8, 0))
    assert driver.depth == 0
    with pytest.raises(CudaError, match="^lost the GPU$"), device.current():
        assert driver.depth == 1
        raise driver.Error("lost\nthe GPU")
    assert driver.depth == 0


def test_pycuda_out_of_memory(hosted):
    device, _ = hosted()
    with pytest.raises(OutOfDeviceMemory) as caught, device.current():
        device.device_memory(1000)
    assert (caught.value.needed, caught.value.free) == (1000, 90)


def test_copies_of_pycuda_name_their_direction(hosted):
    device, driver = hosted()
    array = np.zeros(8, np.uint8)
    pinned, block = gpu.Memory(1, 8, array=array), gpu.Memory(2, 8)
    stream = device.stream()
    driver.calls.clear()
    stream.copy(block, pinned, 4)
    stream.copy(pinned, block, 4)
    stream.copy(block, block, 4)
    assert [call[0] for call in driver.calls] == [
        "memcpy_htod_async",
        "memcpy_dtoh_async",
        "memcpy_dtod_async",
    ]
    with pytest.raises(CudaError, match="pycuda cannot capture CUDA graphs"):
        stream.capture(lambda: None)


def test_memory_is_given_back_once():
    released = []
    memory = gpu.Memory(1, 2, lambda: released.append(1), np.zeros(2, np.uint8))
    memory.close()
    memory.close()
    assert released == [1] and memory.array is None


@pytest.mark.parametrize(
    ("text", "capability"), [("8.6", (8, 6)), ("SM86", (8, 6)), ("SM120", (12, 0)), ("7.5", (7, 5))]
)
def test_capability(text, capability):
    assert parse_capability(text) == capability


@pytest.mark.parametrize("text", ["", "SM", "[N/A]", "8.6.1"])
def test_no_capability(text):
    with pytest.raises(ValueError):
        parse_capability(text)
