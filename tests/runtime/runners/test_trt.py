"""Engine -> runner, with a stand-in for TensorRT that computes: buckets, threads, life cycle."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import lmk
from lmk.runtime.errors import UserError
from lmk.runtime.runners.gpu import CudaError, DeviceArray
from lmk.runtime.runners.trt import TrtRunner

SIDE = 16


@pytest.fixture
def engine_path(library, tmp_path):
    return library.write_file(tmp_path / "blob.engine")


@pytest.fixture
def runner(engine_path, library):
    with TrtRunner(engine_path) as opened:
        yield opened


@pytest.fixture
def crops():
    return np.random.default_rng(0).integers(0, 256, (21, SIDE, SIDE, 3), dtype=np.uint8)


def _assert_found(library, runner, crops):
    for given, expected in zip(runner(crops), library.find(crops), strict=True):
        assert given.dtype == np.float32
        np.testing.assert_array_equal(given, expected)


def test_any_batch_in_the_right_buckets(runner, library, crops):
    for count, buckets in [(1, [1]), (3, [4]), (5, [8]), (8, [8]), (9, [8, 1]), (21, [8, 8, 8])]:
        runner(crops[:count])  # captures
        library.engines[0]._ran.clear()
        _assert_found(library, runner, crops[:count])
        assert library.engines[0]._ran == buckets
    assert [found.shape for found in runner(crops[:0])] == [(0, 3, 2), (0, 3)]


def test_results_are_the_callers(runner, crops):
    first = runner(crops[:2])
    kept = [found.copy() for found in first]
    runner(crops[2:4])
    np.testing.assert_array_equal(first[0], kept[0])
    np.testing.assert_array_equal(first[1], kept[1])


def test_name_tells_engine_and_device(runner, gpu, engine_path):
    where = "on Fake GPU (compute capability 8.6) through fake-core 1.0"
    assert runner.name == f"TensorRT for RTX 1.7.1 {where}"
    gpu.captures = False
    with TrtRunner(engine_path) as streaming:
        assert streaming.name.endswith(", without CUDA graphs")


def test_one_graph_a_bucket_and_the_same_without(runner, gpu, engine_path, library, crops):
    for _ in range(3):
        runner(crops[:9])
    assert gpu.captured == 2
    with TrtRunner(engine_path, cuda_graph=False) as streaming:
        _assert_found(library, streaming, crops)
    assert gpu.captured == 2


def test_what_no_graph_can_hold_is_said(runner, library, crops):
    library.engines[0]._capturable = False
    with pytest.raises(UserError, match="cannot be captured in a CUDA graph; load it without"):
        runner(crops)


class OnDevice:
    """An array of somebody else's on the stand-in's GPU."""

    def __init__(self, array, contiguous=True):
        self.view = DeviceArray(array.ctypes.data, array.shape, array.dtype, contiguous, array)

    __cuda_array_interface__ = None


def test_arrays_in_device_memory(runner, crops, library):
    for given, expected in zip(runner(OnDevice(crops)), library.find(crops), strict=True):
        np.testing.assert_array_equal(given, expected)
    with pytest.raises(ValueError, match="expected C order"):
        runner(OnDevice(crops, contiguous=False))
    with pytest.raises(ValueError, match=r"crops: got float32 .*expected uint8 \(B, 16, 16, 3\)"):
        runner(OnDevice(crops.astype(np.float32)))


def test_arrays_of_others_in_host_memory(runner, crops, library):
    class Tensor:
        def __dlpack__(self, **options):
            return crops.__dlpack__(**options)

        def __dlpack_device__(self):
            return crops.__dlpack_device__()

    _assert_found(library, runner, crops[::2])  # strides
    np.testing.assert_array_equal(runner(Tensor())[0], library.find(crops)[0])
    with pytest.raises(ValueError, match="crops: got list, expected an array: NumPy's, or one"):
        runner(crops.tolist())


def test_eight_threads(runner, gpu, crops, library):
    start = threading.Barrier(8)

    def work(seed):
        mine = np.random.default_rng(seed).permutation(crops)
        start.wait()
        for count in (21, 1, 5, 9):
            _assert_found(library, runner, mine[:count])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(runner._idle) <= 8
    runner.close()
    assert not gpu.live


def test_threads_that_come_and_go_share_memory(runner, gpu, crops):
    runner(crops)
    live = len(gpu.live)
    for _ in range(5):
        thread = threading.Thread(target=runner, args=[crops])
        thread.start()
        thread.join()
    assert len(gpu.live) == live


def test_nothing_grows_when_opened_fifty_times(engine_path, library, gpu, crops):
    for _ in range(50):
        runner = TrtRunner(engine_path)
        runner(crops[:5])
        assert gpu.live
        runner.close()
        runner.close()
        assert not gpu.live
    with pytest.raises(ValueError, match="called after close"):
        runner(crops)


def test_close_waits_for_a_call(runner, gpu, library, crops):
    runner(crops[:1])
    inside, go_on = threading.Event(), threading.Event()
    run = library.engines[0]._ran.append
    library.engines[0]._ran = SimpleNamespace(
        append=lambda batch: (inside.set(), go_on.wait(10), run)
    )
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(runner, crops[:1])
        assert inside.wait(10)
        closing = pool.submit(runner.close)
        assert not closing.done() and gpu.live
        go_on.set()
        np.testing.assert_array_equal(call.result(10)[0], library.find(crops[:1])[0])
        closing.result(10)
    assert not gpu.live


def test_a_runner_that_is_dropped_frees_its_memory(engine_path, library, gpu, crops):
    TrtRunner(engine_path)(crops)
    assert not gpu.live


@pytest.mark.parametrize("when", ["context", "capture", "run"])
def test_an_error_in_the_middle_frees_everything(runner, gpu, library, crops, when):
    if when == "run":
        runner(crops)
    if when == "context":
        library.engines[0]._broken = True
    else:
        gpu.fault = CudaError("illegal address")
    with pytest.raises(UserError, match=r"cannot run these crops \(.*\); try a smaller batch"):
        runner(crops)
    assert not gpu.live
    library.engines[0]._broken, gpu.fault = False, None
    _assert_found(library, runner, crops)


def test_out_of_memory_says_how_much(runner, gpu, crops, library):
    gpu.limit = 5 << 20
    with pytest.raises(UserError, match=r"a batch of 8 needs 8\.0 MiB, 5\.0 MiB are free; run sma"):
        runner(crops)
    assert not gpu.live
    _assert_found(library, runner, crops[:4])


def test_load_takes_an_engine(engine_path, gpu):
    with lmk.load(engine_path) as landmarker:
        assert isinstance(landmarker.runner, TrtRunner) and landmarker.names[0] == "red"
        found = landmarker(np.full((40, 50, 3), 128, np.uint8))
        assert found.points.shape == (3, 2) and gpu.live
    assert not gpu.live
    with pytest.raises(UserError, match="blob.engine: got device 'cpu', expected cuda, where eng"):
        lmk.load(engine_path, device="cpu")
