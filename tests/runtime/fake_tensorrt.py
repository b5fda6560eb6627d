"""A stand-in for the module tensorrt_rtx: as much as the runner uses, with an engine that computes.

Names of classes, methods and parameters are the library's, which test_plan.py checks. The test puts
a FakeCuda into `cuda`, and what models there are into `read_model`.
"""

import ctypes
import functools

import numpy as np

from lmk.runtime.model.contract import Contract
from lmk.runtime.model.engine_file import EngineInfo, Recipe, sha256, write_engine

__version__ = "1.7.1"
SIDE, BATCHES, SCRATCH = 16, (1, 4, 8), 1 << 20  # scratch bytes for each crop of a batch
IMAGE, LANDMARKS, SCORES = "image", "landmarks", "scores"
cuda = None
engines = []
refusal = ""  # what is logged instead of loading a plan


def find(crops, gain=1.0):
    """What the engine finds: means of the channels and of their upper halves, as 3 landmarks."""
    whole, half = crops.mean((1, 2)), crops[:, : SIDE // 2].mean((1, 2))
    return (gain * np.stack([whole, half], -1)).astype(np.float32), (whole / 255).astype(np.float32)


def write_file(path, contract=None, **changes):
    """Write an engine file; `changes` of its recipe, and of its contract."""
    names = ("red", "green", "blue")
    values = dict(category="blob", num_landmarks=3, input_size=SIDE, precision="fp32")
    values |= dict(core_sha256="c" * 64, pack_sha256="p" * 64, landmark_names=names)
    recipe = dict(onnx_sha256="o" * 64, precision="fp32", library="tensorrt_rtx")
    recipe |= dict(library_version=__version__, gpu="", targets=("8.6", "8.9"), batches=BATCHES)
    recipe |= dict(refittable=True, level=3, workspace_mib=None) | changes
    plan = b"ptrt"
    described = Contract(**(values | (contract or {}))), Recipe(**recipe)
    write_engine(path, EngineInfo(*described, {}, {}, {}, 1.0, len(plan), sha256(plan)), plan)
    return path


def read_model(model):
    """What an engine with the weights of that ONNX model finds in crops; ValueError: does not fit.

    Here the model is its gain, b"2.0".
    """
    return functools.partial(find, gain=float(model))


class ExecutionContextAllocationStrategy:
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy:
    EAGER = 1


class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        if refusal:
            self.logger.log(ILogger.Severity.ERROR, refusal)
            return None
        engines.append(ICudaEngine())
        return engines[-1]


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return "cache"

    def set_runtime_cache(self, cache):
        return cache == "cache"


class ICudaEngine:
    num_io_tensors, num_optimization_profiles, refittable = 3, 3, True

    def __init__(self):
        self._shapes = {IMAGE: (-1, SIDE, SIDE, 3), LANDMARKS: (-1, 3, 2), SCORES: (-1, 3)}
        self._find = find
        self._ran = []  # batches
        self._capturable, self._broken = True, False

    def create_runtime_config(self):
        return IRuntimeConfig()

    def get_device_memory_size_for_profile_v2(self, profile_index):
        return SCRATCH * BATCHES[profile_index]

    def create_execution_context(self, runtime_config):
        assert runtime_config.strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)

    def get_tensor_name(self, index):
        return list(self._shapes)[index]

    def get_tensor_shape(self, name):
        return self._shapes[name]

    def get_tensor_profile_shape(self, name, profile_index):
        return [(BATCHES[profile_index], SIDE, SIDE, 3)] * 3


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._addresses = engine, {}

    def set_optimization_profile_async(self, profile_index, stream_handle):
        self._batch = BATCHES[profile_index]
        return not self._engine._broken

    def set_device_memory(self, memory, size):
        assert size == SCRATCH * self._batch

    def set_input_shape(self, name, shape):
        return (name, shape) == (IMAGE, (self._batch, SIDE, SIDE, 3))

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def is_stream_capturable(self, stream):
        return self._engine._capturable

    def execute_async_v3(self, stream_handle):
        finding = self._engine._find  # what is captured keeps its weights
        cuda.live[stream_handle].queue.append(lambda: self._run(finding))
        return True

    def _run(self, finding):
        found = finding(self._array(IMAGE, np.uint8, SIDE, SIDE, 3))
        self._array(LANDMARKS, np.float32, 3, 2)[:] = found[0]
        self._array(SCORES, np.float32, 3)[:] = found[1]
        self._engine._ran.append(self._batch)

    def _array(self, name, dtype, *shape):
        nbytes = np.dtype(dtype).itemsize * self._batch * int(np.prod(shape))
        block = (ctypes.c_uint8 * nbytes).from_address(self._addresses[name])
        return np.frombuffer(block, dtype).reshape(self._batch, *shape)


class Refitter:
    def __init__(self, engine, logger):
        self._engine, self._given = engine, None

    def refit_cuda_engine(self):
        self._engine._find = self._given
        return True


class OnnxParserRefitter:
    num_errors = 0

    def __init__(self, refitter, logger):
        self._refitter = refitter

    def refit_from_bytes(self, model):
        try:
            self._refitter._given = read_model(model)
        except ValueError as error:
            self.num_errors, self._error = 1, str(error)
            return False
        return True

    def get_error(self, index):
        return ParserError(self._error)


class ParserError:
    def __init__(self, text):
        self._text = text

    def desc(self):
        return self._text
