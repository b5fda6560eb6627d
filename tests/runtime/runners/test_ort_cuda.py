"""I/O binding, on the CPU where it is the same code: any batch through buffers of fixed sizes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lmk.runtime.runners.gpu import DeviceArray
from lmk.runtime.runners.ort import OrtRunner
from lmk.runtime.runners.ort_cuda import BoundSession


@pytest.fixture(scope="module")
def runner(model_path):
    with OrtRunner(model_path, threads=1) as opened:
        yield opened


@pytest.fixture
def bound(runner):
    return BoundSession(runner._session, runner.contract, (8, 1, 4), device="cpu")


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 21])
def test_any_batch_finds_the_same(runner, bound, crops, count):
    for given, expected in zip(bound.run(crops[:count]), runner(crops[:count]), strict=True):
        assert given.dtype == np.float32 and given.shape == expected.shape
        np.testing.assert_allclose(given, expected, atol=1e-5)


def test_results_are_the_callers(bound, crops):
    first = bound.run(crops[:3])[0]
    kept = first.copy()
    bound.run(crops[3:6])
    np.testing.assert_array_equal(first, kept)


def test_threads_take_turns(runner, bound, crops):
    def work(start):
        mine = crops[start:]
        np.testing.assert_allclose(bound.run(mine)[0], runner(mine)[0], atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_runs_an_array_where_it_lies(runner, bound, crops):
    view = DeviceArray(crops.ctypes.data, crops.shape, crops.dtype, True, crops)
    for given, expected in zip(bound.run_view(view), runner(crops), strict=True):
        np.testing.assert_array_equal(given, expected)
