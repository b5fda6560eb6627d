"""Crops -> landmarks and scores, on the engine and device asked for."""

from lmk.runtime.runners.auto import for_shipped
from lmk.runtime.runners.gpu import Gpu, capability_text, parse_capability
from lmk.runtime.runners.gpu_open import open_device
from lmk.runtime.runners.open import AUTO, open_runner, settle, swap
from lmk.runtime.runners.ort import PROVIDERS, OrtRunner, open_session
from lmk.runtime.runners.ov import OpenVinoRunner, adds_int8_exactly, cpu_flags
from lmk.runtime.runners.registry import (
    CUDA_CORE,
    ONNXRUNTIME,
    RUNNERS,
    TENSORRT_RTX,
    Package,
    RunnerEntry,
    device_words,
    runner_packages,
)
from lmk.runtime.runners.runner import Reading, Runner, check_crops, host_array
from lmk.runtime.runners.trt import TrtRunner
from lmk.runtime.runners.trt_engine import make_log
