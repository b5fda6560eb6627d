"""Which interface to the GPU: cuda-core's, or PyCUDA's where the host owns a context."""

from __future__ import annotations

import os

from lmk.runtime.errors import UserError
from lmk.runtime.runners.gpu import CudaDevice, capability_text

VARIABLE = "LMK_CUDA"


def open_device(index: int = 0) -> CudaDevice:
    """Open GPU `index` through the library that LMK_CUDA names: cuda-core (default) or pycuda.

    PyCUDA works inside the context that is current in this thread, if there is one. Raises
    UserError for an unknown name, a missing library and a machine without a GPU.
    """
    name = os.environ.get(VARIABLE) or "cuda-core"
    if name not in ("cuda-core", "pycuda"):
        raise UserError(
            f"{VARIABLE}: got '{name}', expected cuda-core or pycuda; unset it for the default"
        )
    try:
        if name == "cuda-core":
            from lmk.runtime.runners.gpu_cuda_core import PrimaryDevice

            return PrimaryDevice(index)
        from lmk.runtime.runners.gpu_pycuda import HostedDevice

        return HostedDevice(index)
    except ImportError as error:
        package = "cuda-core cuda-bindings" if name == "cuda-core" else "pycuda"
        raise UserError(
            f"{name}: cannot be imported ({error}), needed to run on a GPU; pip install {package}"
        ) from error
    except Exception as error:  # no driver, no GPU, or one that is lost: each library has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cuda device {index}: got '{reason}', expected an NVIDIA GPU that works; check it "
            "with `nvidia-smi`, see `lmk doctor`, or use the cpu device"
        ) from error


def describe(device: CudaDevice) -> str:
    """Name, compute capability and library in one line, and that graphs are missing if so."""
    capability = capability_text(device.compute_capability)
    text = f"{device.name} (compute capability {capability}) through {device.library}"
    return text if device.captures else f"{text}, without CUDA graphs"
