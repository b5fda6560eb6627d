"""A built engine on a GPU against ONNX Runtime on the CPU, with each library that is installed."""

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lmk
from lmk.runtime.errors import UserError
from lmk.runtime.model.engine_file import read_info
from lmk.runtime.runners.gpu_open import open_device
from lmk.runtime.runners.ort import OrtRunner
from lmk.runtime.runners.trt import TrtRunner

pytestmark = pytest.mark.gpu
BATCHES = (1, 4, 8)
TOLERANCE_PX = 2e-3  # fp32, summed in another order; points are up to 63 px


@pytest.fixture(scope="module")
def model_with_weights(model_path, tmp_path_factory):
    """The centroid model behind a convolution that passes on what it gets: engines want one."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(model_path)
    cast, make = model.graph.node[0], onnx.helper.make_node
    cast.output[0] = "cast"
    nodes = [
        make("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        make("Conv", ["planes", "mix"], ["mixed"]),
        make("Transpose", ["mixed"], ["pixels"], perm=[0, 2, 3, 1]),
    ]
    for place, node in enumerate(nodes, 1):
        model.graph.node.insert(place, node)
    mix = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(mix, "mix"))
    path = tmp_path_factory.mktemp("mixed") / "blob.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt_rtx"])
def engine_path(request, model_with_weights, tmp_path_factory):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    try:
        open_device()
    except UserError as error:
        pytest.skip(str(error)[:60])
    from lmk.export.engine.build import export_engine
    from lmk.export.engine.options import EngineOptions

    path = tmp_path_factory.mktemp("engine") / "blob.engine"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LMK_CACHE", str(tmp_path_factory.mktemp("cache")))
        export_engine(model_with_weights, path, EngineOptions(request.param, BATCHES))
    try:
        TrtRunner(path).close()
    except UserError as error:
        if request.param == "tensorrt_rtx":  # its matrix of GPUs has no data-centre ones
            pytest.skip(str(error)[-300:])
        raise
    return path


@pytest.fixture
def runner(engine_path):
    with TrtRunner(engine_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(model_with_weights):
    with OrtRunner(model_with_weights, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)


def _assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], atol=TOLERANCE_PX)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 21])
def test_same_as_onnx_runtime(runner, reference, crops, count):
    for _ in range(2):  # captured, launched again
        _assert_same(runner(crops[:count]), reference(crops[:count]))


def test_graphs_change_nothing(engine_path, runner, crops):
    with TrtRunner(engine_path, cuda_graph=False) as streaming:
        for given, expected in zip(runner(crops), streaming(crops), strict=True):
            np.testing.assert_array_equal(given, expected)


def test_eight_threads(runner, reference, crops):
    start = threading.Barrier(8)

    def work(seed):
        mine = np.random.default_rng(seed).permutation(crops)
        start.wait()
        for count in (21, 1, 5, 9) * 5:
            _assert_same(runner(mine[:count]), reference(mine[:count]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_nothing_grows_when_opened_fifty_times(engine_path, crops):
    device = open_device()
    free = []
    for _ in range(50):
        with TrtRunner(engine_path) as runner:
            runner(crops)
        with device.current():
            free.append(device.memory_info()[0])
    # The first ones load modules that stay; others on this GPU may come and go a little.
    assert free[-1] >= free[9] - (8 << 20), [value >> 20 for value in free]


def test_tensors_of_torch_stay_where_they_are(runner, crops):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(crops).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        brighter = 255 - tensor  # still being written when it is given
        found = runner(brighter)
    _assert_same(found, runner(255 - crops))
    _assert_same(runner(torch.from_numpy(crops)), runner(crops))
    with pytest.raises(ValueError, match="expected C order"):
        runner(tensor.permute(0, 2, 1, 3))


def test_refit(engine_path, runner, model_with_weights, reference, crops):
    """Red and green change places, and back; also what was captured in graphs."""
    if not read_info(engine_path).recipe.refittable:
        pytest.skip("this library built the engine with fixed weights")
    onnx = pytest.importorskip("onnx")
    model = onnx.load(model_with_weights)
    mix = next(tensor for tensor in model.graph.initializer if tensor.name == "mix")
    swapped = np.eye(3, dtype=np.float32)[[1, 0, 2]].reshape(3, 3, 1, 1)
    mix.CopyFrom(onnx.numpy_helper.from_array(swapped, "mix"))
    before = reference(crops)
    _assert_same(runner(crops), before)
    runner.refit(model.SerializeToString(), runner.contract)
    _assert_same(runner(crops), [found[:, [1, 0, 2]] for found in before])
    runner.refit(model_with_weights.read_bytes(), runner.contract)
    _assert_same(runner(crops), before)


def test_load_takes_an_engine(engine_path, reference, crops):
    with lmk.load(engine_path) as landmarker:
        assert isinstance(landmarker.runner, TrtRunner)
        _assert_same(landmarker.runner(crops), reference(crops))
