"""precision: half precision stands in the graph's types, and its rounding can be emulated."""

import copy
import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lmk.export.graph.half import emulated, halve, split
from lmk.export.graph.trace import DetectorGraph, fold
from lmk.export.graph.verify import open_session, run_eager, run_emulated, run_onnx
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import INPUT, LANDMARKS, SCORES
from lmk.runtime.runners.ort import open_session as open_runtime_session

TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def half(request, onnx_model):
    return request.param, halve(onnx_model, request.param)


def element_types(model):
    """Tensor -> element type, of all that the graph computes or holds."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = itertools.chain(graph.value_info, graph.input, graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def mean_drift(one, other):
    return np.linalg.norm(one[0] - other[0], axis=2).mean()


def test_network_is_half_and_the_rest_float(half):
    precision, model = half
    onnx.checker.check_model(model, full_check=True)
    types = element_types(model)
    before, network, after = split(model.graph)
    inner = [name for node in network for name in (*node.output, *node.input[:1])]
    assert {types[name] for name in inner} == {TYPES[precision]}
    assert {types[name] for node in network if node.op_type == "Conv" for name in node.input} == {
        TYPES[precision]
    }
    assert [node.op_type for node in before[:3]] == ["Cast", "Transpose", "Div"]
    softmax = next(node for node in after if node.op_type == "Softmax")
    for name in (*before[2].output, *softmax.input, *softmax.output, LANDMARKS, SCORES):
        assert types[name] == TensorProto.FLOAT, name
    assert types[INPUT] == TensorProto.UINT8


def test_two_casts_more_and_no_other_operator(half, onnx_model):
    names = [node.op_type for node in half[1].graph.node]
    assert sorted(names) == sorted([node.op_type for node in onnx_model.graph.node] + ["Cast"] * 2)


def test_weights_are_rounded_once(half, onnx_model):
    precision, model = half
    dtype = helper.tensor_dtype_to_np_dtype(TYPES[precision])
    exact = {t.name: numpy_helper.to_array(t) for t in onnx_model.graph.initializer}
    rounded = [t for t in model.graph.initializer if t.data_type == TYPES[precision]]
    assert len(rounded) == sum(name.startswith("network.") for name in exact)
    for tensor in rounded:
        values = numpy_helper.to_array(tensor)
        assert np.array_equal(values, exact[tensor.name].astype(dtype)), tensor.name


def test_the_argument_is_untouched(onnx_model):
    before = onnx_model.SerializeToString(deterministic=True)
    halve(onnx_model, "fp16")
    emulated(onnx_model)
    assert onnx_model.SerializeToString(deterministic=True) == before


def test_weight_that_fp16_cannot_hold_is_named(onnx_model):
    large = copy.deepcopy(onnx_model)
    tensor = next(t for t in large.graph.initializer if t.name == "network.top.bn1.running_var")
    values = numpy_helper.to_array(tensor).copy()
    values[1] = 7e4
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(
        UserError, match=r"'network\.top\.bn1\.running_var': got 7e\+04.*65504.*bf16"
    ):
        halve(large, "fp16")
    halve(large, "bf16")


def test_emulation_of_single_precision_changes_nothing(onnx_model, crops):
    data = onnx_model.SerializeToString()
    np.testing.assert_allclose(run_emulated(data, crops)[0], run_onnx(data, crops)[0], atol=0.01)


def test_emulation_rounds_every_result(half, crops):
    """What each operator of the network hands on is a number of the half type, and only just."""
    precision, model = half
    dtype = helper.tensor_dtype_to_np_dtype(TYPES[precision])
    twin = emulated(model)
    names = [node.output[0] for node in split(model.graph)[1]]
    exact = [f"{name}_exact" for name in names]
    for name in names + exact:
        twin.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(twin.SerializeToString(), optimised=False)
    found = session.run(names + exact, {INPUT: crops[:1]})
    rounded, exact = found[: len(names)], found[len(names) :]
    for name, values, before in zip(names, rounded, exact, strict=True):
        assert np.array_equal(values, before.astype(dtype).astype(np.float32)), name
    assert not all(np.array_equal(*pair) for pair in zip(rounded, exact, strict=True))


def test_emulation_drifts_as_pytorch_in_half_precision_does(half, adapted, crops):
    precision, model = half
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    network = fold(adapted).to(dtype)

    class Half(torch.nn.Module):
        config, naming = network.config, None

        def forward(self, images):
            return network(images.to(dtype))

    expected = run_eager(adapted, crops)
    with torch.inference_mode():
        found = DetectorGraph(Half().eval())(torch.from_numpy(crops))
    ratio = mean_drift(run_emulated(model.SerializeToString(), crops), expected) / mean_drift(
        (found[0].numpy(),), expected
    )
    assert 1 / 3 < ratio < 3, ratio


def test_onnxruntime_runs_fp16_within_the_emulated_drift(onnx_model, adapted, crops):
    data = halve(onnx_model, "fp16").SerializeToString()
    expected = run_eager(adapted, crops)
    itself = mean_drift(run_onnx(data, crops), expected)
    assert 0 < itself < 3 * mean_drift(run_emulated(data, crops), expected)


def test_bf16_on_the_cpu_is_refused_in_words(onnx_model, tmp_path):
    """When ONNX Runtime gets such a convolution, `emulated` has one reason less."""
    path = tmp_path / "bf16.onnx"
    path.write_bytes(halve(onnx_model, "bf16").SerializeToString())
    with pytest.raises(UserError, match=r"has no operators of its precision .*--precision fp32"):
        open_runtime_session(path, "CPUExecutionProvider", 1)
