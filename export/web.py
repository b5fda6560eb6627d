"""An exported model -> a folder with one page that runs it in the browser, all files beside it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output, write_bytes
from lmk.runtime.model import INPUT, LANDMARKS, SCORES, read_model
from lmk.runtime.outputs import colour

LIBRARY = "onnxruntime-web"  # of the npm registry; tested with 1.30.0
_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_PAGE = Path(__file__).parent / "page"
_CURE = f"`npm pack {LIBRARY}` and give the .tgz, or the folder of an installed one"


def write_page(onnx: Path, library: Path, folder: Path, force: bool = False) -> Path:
    """Write into `folder` the page of the model `onnx` and what it needs; return its index.html.

    library: ONNX Runtime Web, as a folder of the npm package or the .tgz of `npm pack`. Nothing is
    fetched, here or by the page, which any static server serves. Raises UserError for files that
    are missing, and for a page that exists (unless `force`).
    """
    index = folder / "index.html"
    check_output(index, force)
    contract = read_model(onnx)[1]
    if contract.precision not in ("fp32", "fp16"):
        raise UserError(f"{onnx}: got {contract.precision}, expected fp32 or fp16; export that")
    colours = ["#{:02x}{:02x}{:02x}".format(*colour(k)) for k in range(contract.num_landmarks)]
    model = {
        "category": contract.category,
        "names": contract.given_names,
        "colours": colours,
        "size": contract.input_size,
        "crop_scale": contract.crop_scale,
        "input": INPUT,
        "landmarks": LANDMARKS,
        "scores": SCORES,
    }
    files = _library(library)
    files |= {path.name: path.read_bytes() for path in _PAGE.iterdir() if path.is_file()}
    files |= {"model.onnx": onnx.read_bytes(), "model.json": json.dumps(model).encode()}
    for name in sorted(files, key=lambda name: name == index.name):  # the page when it is whole
        write_bytes(folder / name, files[name])
    return index


def _library(path: Path) -> dict[str, bytes]:
    """The files of ONNX Runtime Web that the page loads."""
    try:
        if path.is_dir():
            place = path / "dist" if (path / "dist").is_dir() else path
            return {name: (place / name).read_bytes() for name in _FILES}
        found = {}
        with tarfile.open(path) as archive:
            for name in _FILES:
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise KeyError(name)
                found[name] = member.read()
        return found
    except (OSError, KeyError, tarfile.TarError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}: got no {LIBRARY} ({reason}), expected {', '.join(_FILES)}; {_CURE}"
        ) from None
