"""ONNX Runtime on a GPU against itself on the CPU: any batch, CUDA graphs, crops of torch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.runners.ort import OrtRunner

pytestmark = pytest.mark.gpu
TOLERANCE_PX = 2e-3


@pytest.fixture(scope="module", params=[(), (1, 4, 8)], ids=["as they are", "graphs"])
def runner(request, model_path):
    try:
        opened = OrtRunner(model_path, device="cuda", buckets=request.param)
    except UserError as error:
        if "did not load" not in str(error):
            raise
        pytest.skip(str(error)[:60])
    with opened:
        yield opened


@pytest.fixture(scope="module")
def reference(model_path):
    with OrtRunner(model_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)


def _assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], atol=TOLERANCE_PX)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


def test_same_as_on_the_cpu(runner, reference, crops):
    for count in (0, 1, 3, 8, 9, 21, 1, 8):
        _assert_same(runner(crops[:count]), reference(crops[:count]))


def test_graphs_read_new_crops(runner, reference, crops):
    for start in range(8):
        _assert_same(runner(crops[start : start + 8]), reference(crops[start : start + 8]))


def test_eight_threads(runner, reference, crops):
    def work(start):
        for count in (13, 1, 5) * 5:
            mine = crops[start:][:count]
            _assert_same(runner(mine), reference(mine))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_tensors_of_torch_stay_where_they_are(runner, reference, crops):
    torch = pytest.importorskip("torch")
    pytest.importorskip("cuda.core")
    tensor = torch.from_numpy(crops).cuda()
    for _ in range(3):
        _assert_same(runner(255 - tensor), reference(255 - crops))
        _assert_same(runner(crops), reference(crops))
