"""ONNX Runtime's providers and TensorRT: the libraries they want, and whether they load."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmk.runtime.doctor.imports import run_python
from lmk.runtime.errors import install_line

# The C and C++ run-time: on every Linux, and nothing that a user could install.
_SYSTEM = ("ld-linux", "libc.", "libm.", "libdl.", "librt.", "libpthread.", "libstdc++", "libgcc_s")

# An ONNX file of one Identity node on a float: small enough to stand here, so that trying a
# provider needs neither the onnx package nor a model of the user's.
_IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"B\x04\n\x00\x10\r"
)
# TensorRT's wheel loads its own libraries when imported: after that, ONNX Runtime finds them.
_PROGRAM = """
import contextlib, ctypes, io, json, sys
from pathlib import Path
import onnxruntime
from lmk.runtime.errors import UserError
from lmk.runtime.runners import open_session
model, provider, *libraries = sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
    onnxruntime.preload_dlls()
with contextlib.suppress(Exception):
    import tensorrt
missing = []
for library in libraries:
    try:
        ctypes.CDLL(library)
    except OSError:
        missing.append(library)
error = None
try:
    open_session(Path(model), provider, threads=1)
except UserError as raised:
    error = str(raised)
print("\\n" + json.dumps([error, missing]))
"""


@dataclass(frozen=True)
class Provider:
    """What became of opening a graph with one of ONNX Runtime's providers."""

    wants: tuple[str, ...]  # libraries; empty where they cannot be read
    missing: tuple[str, ...]  # of those, the ones that cannot be loaded
    error: str | None  # why it does not load, in one line


def try_provider(name: str) -> Provider:
    """Open a graph with the provider `name`, as "CUDAExecutionProvider", in a Python of its own.

    The CUDA and TensorRT libraries that are installed as wheels are found.
    """
    wants = _wanted_by_provider(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.onnx"
        path.write_bytes(_IDENTITY)
        status, printed, complaints = run_python(_PROGRAM, str(path), name, *wants)
    if status == 0:
        error, missing = json.loads(printed.splitlines()[-1])
        return Provider(wants, tuple(missing), error)
    lines = [line for line in complaints.splitlines() if line.strip()]
    return Provider(wants, (), lines[-1] if lines else f"{name} ends Python with status {status}")


def _wanted_by_provider(name: str) -> tuple[str, ...]:
    spec = find_spec("onnxruntime")  # imports nothing
    if spec is None or spec.origin is None:
        return ()
    word = name.removesuffix("ExecutionProvider").lower()
    libraries = Path(spec.origin).parent.glob("capi/libonnxruntime_providers_*.so")
    # NvTensorRTRTX's library ends in _nv_tensorrt_rtx
    of_it = [p for p in libraries if p.stem.split("providers_")[1].replace("_", "") == word]
    return wanted_libraries(of_it[0]) if of_it else ()


def wanted_by_tensorrt(module: str) -> str:
    """What the bindings of `tensorrt` or `tensorrt_rtx` want and which package brings it.

    As "wants libtensorrt_rtx.so.1 of tensorrt_rtx_libs"; empty where that cannot be read.
    """
    bindings = _folder(f"{module}_bindings")
    bundle = _folder(f"{module}_libs")
    files = sorted(bindings.glob("*.so")) if bindings else []
    wants = [n for file in files for n in wanted_libraries(file) if "parser" not in n]
    described = [f"{n} of {bundle.name}" if bundle and (bundle / n).exists() else n for n in wants]
    return f"wants {', '.join(described)}" if described else ""


def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def provider_cure(provider: Provider) -> str:
    """The line that brings what a provider of an NVIDIA GPU misses."""
    if "libcuda.so.1" in provider.missing:
        return "reinstall the driver: libcuda.so.1 is a part of it"
    tensorrt = _major("nvinfer", provider.missing)
    if tensorrt:
        cuda = _major("cudart", provider.wants)
        return f"pip install 'tensorrt{f'-cu{cuda}' if cuda else ''}=={tensorrt}.*'"
    return install_line("cuda")


def _major(library: str, names: tuple[str, ...]) -> str | None:
    """`10` for library `nvinfer` and the name `libnvinfer.so.10`."""
    found = (re.fullmatch(rf"lib{library}\.so\.(\d+).*", name) for name in names)
    return next((match[1] for match in found if match), None)


def wanted_libraries(path: Path) -> tuple[str, ...]:
    """Names of the libraries that `path` cannot be loaded without, as `libnvinfer.so.10`.

    Those of the system's C run-time are left out. Empty for a file of another format: a DLL, a
    dylib, a damaged library.
    """
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as file:
            dynamic: Any = next(ELFFile(file).iter_segments("PT_DYNAMIC"), None)
            names = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")] if dynamic else []
    except Exception:  # elftools raises almost anything on damaged bytes
        return ()
    return tuple(name for name in names if not name.startswith(_SYSTEM))
