"""The CUDA interface on a GPU: memory that is given back, copies in order, graphs, contexts."""

import ctypes

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.runners.gpu import OutOfDeviceMemory
from lmk.runtime.runners.gpu_open import describe, open_device

pytestmark = pytest.mark.gpu
MIB = 1 << 20


@pytest.fixture(params=["cuda-core", "pycuda"])
def device(request, monkeypatch):
    monkeypatch.setenv("LMK_CUDA", request.param)
    try:
        return open_device()
    except UserError as error:
        pytest.skip(str(error)[:60])


@pytest.fixture
def blocks(device):
    """Return a function that allocates; all of it is freed after the test."""
    made = []

    def make(allocate, nbytes):
        made.append(allocate(nbytes))
        return made[-1]

    with device.current():
        yield make
        for memory in made:
            memory.close()


def test_facts(device):
    assert device.name and device.compute_capability >= (7, 5)
    assert device.name in describe(device)
    with device.current():
        free, total = device.memory_info()
    assert 0 < free <= total


def test_there_and_back(device, blocks):
    source, middle, target = (
        blocks(allocate, MIB)
        for allocate in (device.pinned_memory, device.device_memory, device.pinned_memory)
    )
    assert not target.array.any()
    source.array[:] = np.random.default_rng(0).integers(0, 256, MIB, dtype=np.uint8)
    stream = device.stream()
    stream.copy(middle, source, MIB)
    stream.copy(target, middle, MIB)
    stream.sync()
    stream.close()
    np.testing.assert_array_equal(target.array, source.array)


def test_graph_repeats_what_was_captured(device, blocks):
    if not device.captures:
        pytest.skip(f"{device.library} has no CUDA graphs")
    source, middle, target = (
        blocks(allocate, MIB)
        for allocate in (device.pinned_memory, device.device_memory, device.pinned_memory)
    )
    stream = device.stream()

    def work():
        stream.copy(middle, source, MIB)
        stream.copy(target, middle, MIB)

    graph = stream.capture(work)
    stream.sync()
    assert not target.array.any()
    for value in (1, 2):
        source.array[:] = value
        graph.launch()
        stream.sync()
        assert (target.array == value).all()
    graph.close()
    stream.close()


def test_error_in_a_capture_leaves_the_stream_usable(device, blocks):
    if not device.captures:
        pytest.skip(f"{device.library} has no CUDA graphs")
    memory = blocks(device.device_memory, MIB)
    stream = device.stream()
    with pytest.raises(ZeroDivisionError):
        stream.capture(lambda: 1 / 0)
    stream.copy(memory, memory, MIB // 2)
    stream.sync()
    stream.close()


def test_memory_is_given_back(device):
    with device.current():
        device.device_memory(64 * MIB).close()
        before = device.memory_info()[0]
        for _ in range(50):
            memory = device.device_memory(64 * MIB)
            assert device.memory_info()[0] <= before - 64 * MIB
            memory.close()
        assert abs(device.memory_info()[0] - before) < 4 * MIB


def test_too_much_says_how_much(device):
    with device.current():
        needed = device.memory_info()[1] + MIB
        with pytest.raises(OutOfDeviceMemory) as caught:
            device.device_memory(needed)
    assert caught.value.needed == needed and 0 < caught.value.free < needed


def test_array_of_torch(device, blocks):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA")
    tensor = torch.arange(200, dtype=torch.uint8, device="cuda").reshape(4, 50)
    stream = device.stream()
    view = device.view(tensor, stream)
    assert (view.pointer, view.shape, view.dtype) == (tensor.data_ptr(), (4, 50), np.uint8)
    assert view.contiguous and not device.view(tensor[:, ::2], stream).contiguous
    stream.close()


def test_context_of_the_host_application():
    driver = pytest.importorskip("pycuda.driver", exc_type=ImportError)
    from lmk.runtime.runners.gpu_pycuda import HostedDevice

    try:
        driver.init()
        context = driver.Device(0).make_context()
    except driver.Error as error:
        pytest.skip(str(error))
    try:
        device = HostedDevice(0)
        with device.current():
            memory = device.pinned_memory(16)
            assert ctypes.c_uint8.from_address(memory.pointer).value == 0
            memory.close()
        assert driver.Context.get_current() == context
    finally:
        context.pop()
        context.detach()
