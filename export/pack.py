"""Pack + core -> one ONNX file: fold, trace, verify, write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.export.fold import fold
from lmk.export.graph import to_onnx, trace, write_onnx
from lmk.export.verify import probe_crops, verify, verify_randomised
from lmk.runtime.contract import Contract
from lmk.runtime.files import check_output
from lmk.train import checkpoint
from lmk.train.category import load_pack

_PROBES = 8


def export_pack(
    pack_path: Path,
    core_path: Path | None,
    output: Path,
    crops: NDArray[np.uint8] | None = None,
    force: bool = False,
) -> Contract:
    """Write the detector of a pack to `output` (.onnx) and return the contract stored in it.

    crops: images of the category, uint8 (N,S,S,3) RGB, to verify on; None takes synthetic ones.
    core_path may be None for a pack of the method `scratch`. Raises UserError for an output that
    exists (unless `force`), a pack or core that is damaged or does not belong to the other, a full
    disk; DriftError when the file would not find what the pack does. Then nothing is written and
    what was there before is untouched.
    """
    check_output(output, force)
    model, header = load_pack(pack_path, core_path)
    network = model.config
    if crops is None:
        crops = probe_crops(network.input_size, _PROBES, seed=0)
    names = tuple(header["landmark_names"])
    folded = fold(model)
    program = trace(folded)
    onnx_model = to_onnx(program, folded)
    drift = verify(model, folded, onnx_model.SerializeToString(), crops, names)
    drift["randomised"] = verify_randomised(model, program)
    contract = Contract(
        category=header["category"],
        num_landmarks=network.num_landmarks,
        input_size=network.input_size,
        precision="fp32",
        core_sha256=header["core_sha256"],
        pack_sha256=header["sha256"],
        landmark_names=names,
        crop_scale=header["crop_scale"],
        drift=drift,
        versions=checkpoint.versions(
            "lmk-toolkit", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"
        ),
    )
    write_onnx(onnx_model, contract, output)
    return contract
