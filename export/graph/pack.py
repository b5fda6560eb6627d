"""Pack + core -> one ONNX file: template, fill, verify, write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from lmk.export.graph.quantise import QUANTISED
from lmk.export.graph.template import fill, template_of
from lmk.export.graph.trace import fold, write_onnx
from lmk.export.graph.typed import typed_graph
from lmk.export.graph.verify import probe_crops, verify_randomised
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.model import Contract, Precision, contract_of
from lmk.train.network import LandmarkNetwork, checkpoint, load_pack

_PROBES = 8


def export_pack(
    pack_path: Path,
    core_path: Path | None,
    output: Path,
    crops: NDArray[np.uint8] | None = None,
    force: bool = False,
    precision: Precision = "fp32",
) -> Contract:
    """Write the detector of a pack to `output` (.onnx) and return the contract stored in it.

    crops: images of the category, uint8 (N,S,S,3) RGB, to verify on, and for int8 and fp8 to
    calibrate on; None takes synthetic ones, but not for these. core_path may be None for a pack of
    the method `scratch`. Raises UserError for an output that exists (unless `force`), a pack or
    core that is damaged or does not belong to the other, a full disk; DriftError when the file
    would not find what the pack does. Then nothing is written and what was there before is
    untouched.
    """
    check_output(output, force)
    if crops is None and precision in QUANTISED:
        raise UserError(
            f"precision {precision}: got no images, expected those of the category, for they set "
            "the scales; name them by --data"
        )
    model, header = load_pack(pack_path, core_path)
    network = model.config
    synthetic = crops is None
    if crops is None:
        crops = probe_crops(network.input_size, _PROBES, seed=0)
    names = tuple(header["landmark_names"])
    folded = fold(model)
    template = template_of(network)

    def filled(adapted: LandmarkNetwork) -> bytes:
        return fill(template, adapted, header)

    single = onnx.load_from_string(filled(model))
    onnx_model, drift = typed_graph(model, folded, single, crops, names, precision)
    drift["synthetic"] = synthetic
    drift["randomised"] = verify_randomised(model, filled)
    verified_by = checkpoint.versions("onnxruntime", "onnxruntime-gpu")
    contract = contract_of(header, precision, template.versions | verified_by)
    contract = replace(contract, drift=drift)
    write_onnx(onnx_model, contract, output)
    return contract
