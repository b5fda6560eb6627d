"""graph: what stands in the ONNX file, and that its batch is free."""

import collections
import contextlib
import os
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from lmk.export.graph.template import fill
from lmk.export.graph.trace import BATCH, OPSET, DetectorGraph, fold, to_onnx, trace, write_onnx
from lmk.export.graph.verify import randomised, run_eager, run_onnx
from lmk.runtime.model.contract import INPUT, LANDMARKS, SCORES, Contract

# Whatever else an exporter leaves (Shape, Gather, Identity, Constant, If …) is work at run time.
POINTWISE = {"Add", "Sub", "Mul", "Div", "Pow", "LessOrEqual", "Relu", "Softmax", "Cast"}
LAYERS = {"Conv", "BatchNormalization", "AveragePool", "Resize", "Concat", "ReduceSum"}
LAYOUT = {"Transpose", "Reshape", "Slice", "Unsqueeze"}


@pytest.fixture(scope="module")
def traced(adapted, tmp_path_factory):
    """The trace of `adapted`, seconds to make; what it printed; its warnings."""
    said = tmp_path_factory.mktemp("trace") / "said"
    kept = os.dup(1), os.dup(2)
    with said.open("w") as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                program = trace(fold(adapted))
        finally:
            for number, before in enumerate(kept, 1):
                os.dup2(before, number)
                os.close(before)
    return program, said.read_text(), caught


@pytest.fixture(scope="module")
def program(traced):
    return traced[0]


@pytest.fixture(scope="module")
def onnx_model(program, adapted):
    return to_onnx(program, fold(adapted))


@pytest.fixture(scope="module")
def session(onnx_model):
    data = onnx_model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def nodes(model, op_type):
    return [node for node in model.graph.node if node.op_type == op_type]


def initializers(model):
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    return {name: value for name, value in found.items() if name.startswith("network.")}


def attribute(node, name, default):
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return values.get(name, default)


def form(value):
    """Element type and shape of a graph input or output, symbols by name."""
    tensor = value.type.tensor_type
    return tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim]


def test_tensors_are_those_of_the_contract(onnx_model):
    graph = onnx_model.graph
    assert {i.name: form(i) for i in graph.input} == {
        INPUT: (onnx.TensorProto.UINT8, [BATCH, 64, 64, 3])
    }
    assert {o.name: form(o) for o in graph.output} == {
        LANDMARKS: (onnx.TensorProto.FLOAT, [BATCH, 5, 2]),
        SCORES: (onnx.TensorProto.FLOAT, [BATCH, 5]),
    }


def test_uint8_goes_into_one_cast_and_nowhere_else(onnx_model):
    """TensorRT refuses any other consumer of a uint8 tensor."""
    consumers = [node for node in onnx_model.graph.node if INPUT in node.input]
    assert [node.op_type for node in consumers] == ["Cast"]
    assert attribute(consumers[0], "to", None) == onnx.TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(onnx_model).graph
    others = [v.name for v in inferred.value_info if form(v)[0] == onnx.TensorProto.UINT8]
    assert others == []


def test_file_is_valid_and_of_the_chosen_opset(onnx_model):
    onnx.checker.check_model(onnx_model, full_check=True)
    assert [(o.domain, o.version) for o in onnx_model.opset_import] == [("", OPSET)]
    assert not onnx_model.functions
    assert not any(t.external_data for t in onnx_model.graph.initializer)


def test_graph_holds_the_network_and_little_else(onnx_model):
    counts = collections.Counter(node.op_type for node in onnx_model.graph.node)
    assert counts.keys() <= POINTWISE | LAYERS | LAYOUT
    assert counts["Conv"] == 56
    assert counts["BatchNormalization"] == 53  # of 55: stem and conv_last went into their Conv
    assert counts["AveragePool"] == 5
    assert counts["Resize"] == 4
    assert counts.total() <= 245


def test_batch_norms_are_in_inference_mode_and_upsampling_is_nearest(onnx_model):
    for node in nodes(onnx_model, "BatchNormalization"):
        assert attribute(node, "training_mode", 0) == 0 and len(node.output) == 1
    for node in nodes(onnx_model, "Resize"):
        assert attribute(node, "mode", b"nearest") == b"nearest"
        assert attribute(node, "coordinate_transformation_mode", None) == b"asymmetric"


def test_no_trace_of_the_method_or_of_this_machine(onnx_model):
    text = onnx_model.SerializeToString()
    for word in (b"projection", b"theta", b"site-packages", b"hourglass.py", b"aten"):
        assert word not in text, word


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_is_dynamic(session, crops, batch):
    landmarks, scores = session.run([LANDMARKS, SCORES], {INPUT: crops[:batch]})
    assert landmarks.shape == (batch, 5, 2)
    assert scores.shape == (batch, 5)
    alone = [session.run([LANDMARKS], {INPUT: crops[i : i + 1]})[0][0] for i in range(batch)]
    np.testing.assert_allclose(landmarks, alone, atol=2e-3)


def test_trace_takes_the_weights_of_another_network(program, adapted, crops):
    other = fold(randomised(adapted, crops, seed=9))
    landmarks, scores = run_onnx(to_onnx(program, other).SerializeToString(), crops)
    expected = run_eager(other, crops)
    np.testing.assert_allclose(landmarks, expected[0], atol=0.01)
    np.testing.assert_allclose(scores, expected[1], atol=1e-3)
    assert np.abs(landmarks - run_eager(adapted, crops)[0]).max() > 1


def test_trace_is_quiet(traced):
    _, said, caught = traced
    assert said == ""
    assert [str(warning.message) for warning in caught] == []


def test_filled_it_is_the_exported_graph(template, onnx_model, adapted):
    """The optimiser folds the two batch-norms in float32, the recipe in float64."""
    filled = onnx.load_from_string(
        fill(template, adapted, {"method": "projection", "scope": "all"})
    )
    onnx.checker.check_model(filled, full_check=True)
    shape = [(node.op_type, len(node.input)) for node in onnx_model.graph.node]
    assert [(node.op_type, len(node.input)) for node in filled.graph.node] == shape
    ours, theirs = initializers(filled), initializers(onnx_model)
    assert ours.keys() == theirs.keys()
    folded = ("network.conv_first.", "network.conv_last.")
    for name, value in theirs.items():
        limit = 8 if name.startswith(folded) else 1
        error = np.abs(ours[name] - value).max() / np.abs(value).max()
        assert error <= limit * np.finfo(np.float32).eps, name


def test_landmarks_are_crop_pixels_and_scores_are_mass():
    class Peaks(nn.Module):
        """Two maps: one peak at cell x=3, y=9; two equal ones, 10 cells apart."""

        naming = None

        def forward(self, images):
            maps = torch.zeros(len(images), 2, 16, 16)
            maps[:, 0, 9, 3] = maps[:, 1, 2, 1] = maps[:, 1, 2, 11] = 5.0
            return maps

    landmarks, scores = DetectorGraph(Peaks().eval())(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    expected = torch.tensor([[[13.5, 37.5], [25.5, 9.5]]])  # 4 · cell + 1.5
    torch.testing.assert_close(landmarks, expected)
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.0]]))


def test_network_sees_rgb_in_zero_to_one_and_only_outside_of_training():
    seen = []

    class Spy(nn.Module):
        naming = None

        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 1, 16, 16)

    crop = np.zeros((1, 64, 64, 3), np.uint8)
    crop[0, 5, 7] = 255, 51, 0
    DetectorGraph(Spy().eval())(torch.from_numpy(crop))
    assert seen[0].shape == (1, 3, 64, 64)
    torch.testing.assert_close(seen[0][0, :, 5, 7], torch.tensor([1.0, 0.2, 0.0]))
    with pytest.raises(ValueError, match=r"network: got one in training mode"):
        DetectorGraph(Spy())


def test_metadata_comes_back(onnx_model, tmp_path):
    contract = Contract("tea pots ☕", 5, 64, "fp32", "a" * 64, "b" * 64, tuple("vwxyz"), 1.25)
    path = tmp_path / "model.onnx"
    write_onnx(onnx_model, contract, path)
    stored = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert Contract.from_metadata(stored, str(path)) == contract
    assert not onnx_model.metadata_props  # the argument is untouched
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
