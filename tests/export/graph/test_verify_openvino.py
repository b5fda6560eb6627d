"""Exported networks in OpenVINO: every precision that it runs finds what ONNX Runtime does."""

from dataclasses import replace

import numpy as np
import pytest

from lmk.export.graph.trace import write_onnx
from lmk.export.graph.verify import run_emulated, run_onnx
from lmk.runtime.runners.ov import OpenVinoRunner

Core = pytest.importorskip("openvino").Core


@pytest.mark.parametrize(
    ("precision", "share"), [("fp32", 1e-5), ("fp16", 0.01), ("bf16", 0.1), ("int8", 0.15)]
)
def test_landmarks_are_those_of_the_file(typed_models, exported, crops, tmp_path, precision, share):
    """Within a share of the spread that random weights give them."""
    path, model = tmp_path / "model.onnx", typed_models[precision]
    write_onnx(model, replace(exported[1], precision=precision), path)
    if precision == "bf16" and "BF16" not in Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        pytest.skip("needs a processor that computes in bfloat16")
    with OpenVinoRunner(path, threads=1, buckets=(1, 4)) as runner:
        found, scores = runner(crops)
    run = run_onnx if precision == "fp32" else run_emulated
    expected, _ = run(model.SerializeToString(), crops)
    drift = np.linalg.norm(found - expected, axis=2).mean()
    spread = np.linalg.norm(expected.std(axis=0), axis=1).mean()
    assert drift <= share * spread, (drift, spread)
    assert (scores >= 0).all() and (scores <= 1.001).all()
