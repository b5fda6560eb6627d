"""quantise: where Q and DQ stand, and that eight bits cost no more than their step."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from lmk.export.graph.half import halve
from lmk.export.graph.quantise import _quantise_weight, calibrate, quantisable, quantise
from lmk.export.graph.verify import open_session, run_emulated, run_onnx
from lmk.runtime.model.contract import INPUT

STEM, HEAD = "network.conv_first.weight", ("network.conv_last.weight", "network.head.weight")
weights = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 3), st.just(2), st.just(1)),
    elements=st.floats(-8, 8, width=32),
)  # fmt: skip


@pytest.fixture(scope="module")
def ranges(onnx_model, crops):
    return calibrate(onnx_model, crops)


@pytest.fixture(scope="module", params=["int8", "fp8"])
def quantised(request, onnx_model, ranges):
    return request.param, quantise(onnx_model, ranges, request.param)


def convolutions(model):
    return {
        node.input[1].removesuffix("_dq"): node
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def initializers(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_all_but_stem_and_head_can_be_quantised(onnx_model):
    every = set(convolutions(onnx_model))
    assert quantisable(onnx_model).keys() == every - {STEM, *HEAD}
    assert len(quantisable(onnx_model)) == 53


def test_range_leaves_out_one_value_in_100_000(onnx_model, crops):
    name = "network.block3.conv1.weight"
    source = quantisable(onnx_model)[name].input[0]
    onnx_model = onnx.ModelProto.FromString(onnx_model.SerializeToString())
    found = calibrate(onnx_model, crops)[source]
    onnx_model.graph.output.append(helper.make_tensor_value_info(source, TensorProto.FLOAT, None))
    session = open_session(onnx_model.SerializeToString())
    values = np.sort(np.abs(session.run([source], {INPUT: crops})[0]).ravel())[::-1]
    np.testing.assert_allclose(found, values[int(1e-5 * len(values))], rtol=1e-5)


def test_range_of_crops_is_that_of_the_widest(onnx_model, crops):
    """Few values: the range is the largest, whatever the order and the batches."""
    whole = calibrate(onnx_model, crops[:5])
    again = calibrate(onnx_model, crops[4::-1])
    alone = [calibrate(onnx_model, crops[i : i + 1]) for i in range(5)]
    for name, value in whole.items():
        np.testing.assert_allclose(value, again[name], rtol=1e-5)
        np.testing.assert_allclose(value, max(one[name] for one in alone), rtol=1e-5)


def test_convolutions_read_dequantised_inputs_and_weights(quantised):
    precision, model = quantised
    onnx.checker.check_model(model, full_check=True)
    made_by = {node.output[0]: node for node in model.graph.node}
    for weight, node in convolutions(model).items():
        makers = [made_by[n].op_type for n in node.input[:2] if n in made_by]
        if weight in (STEM, *HEAD):
            assert "DequantizeLinear" not in makers, weight
            continue
        assert makers == ["DequantizeLinear"] * 2, weight
        assert made_by[made_by[node.input[0]].input[0]].op_type == "QuantizeLinear"
        assert made_by[node.input[1]].input[0] == weight  # stored quantised, no Q before
    readers = {n for node in model.graph.node if node.op_type != "Conv" for n in node.input}
    assert not any(name.endswith("_dq") for name in readers)


def test_scales_are_symmetric_and_exact_in_fp16(quantised, onnx_model):
    precision, model = quantised
    values = initializers(model)
    for name, scale in values.items():
        if name.endswith("_scale"):
            assert np.array_equal(scale, scale.astype(np.float16)) and (scale > 0).all(), name
        if name.endswith("_zero"):
            assert scale.astype(np.float32) == 0
    for name, exact in initializers(onnx_model).items():
        if name in quantisable(onnx_model):
            assert values[name].dtype.itemsize == 1
            assert values[f"{name}_scale"].shape == exact.shape[:1]  # one an output channel


@settings(max_examples=60, deadline=None)
@given(values=weights)
def test_int8_weight_is_off_by_half_a_step_at_most(values):
    tensor = numpy_helper.from_array(values, "w")
    scale = numpy_helper.to_array(_quantise_weight(tensor, "int8"))[:, None, None, None]
    steps = numpy_helper.to_array(tensor)
    assert steps.dtype == np.int8 and steps.min() >= -127
    # the largest may also be clipped, by what fp16 takes off the scale
    bound = 0.5 * scale + np.abs(values) * 2.0**-11
    assert (np.abs(steps * scale - values) <= bound).all()


@settings(max_examples=60, deadline=None)
@given(values=weights)
def test_fp8_weight_keeps_three_bits_of_mantissa(values):
    tensor = numpy_helper.from_array(values, "w")
    scale = numpy_helper.to_array(_quantise_weight(tensor, "fp8"))[:, None, None, None]
    steps = numpy_helper.to_array(tensor).astype(np.float32)
    assert np.isfinite(steps).all()
    bound = np.maximum(np.abs(values) * 2.0**-4, scale * 2.0**-10)
    assert (np.abs(steps * scale - values) <= bound * 1.001).all()


@pytest.mark.parametrize(("precision", "limit"), [("int8", 0.15), ("fp8", 0.4)])
def test_landmarks_move_little(onnx_model, ranges, crops, precision, limit):
    """Of the spread that random weights give them; a wrong scale anywhere moves them all."""
    expected, _ = run_onnx(onnx_model.SerializeToString(), crops)
    found, _ = run_emulated(quantise(onnx_model, ranges, precision).SerializeToString(), crops)
    drift = np.linalg.norm(found - expected, axis=2).mean()
    assert 0 < drift < limit * np.linalg.norm(expected.std(axis=0), axis=1).mean(), drift


def test_kept_convolutions_stay_and_lower_the_drift(onnx_model, ranges, crops):
    expected, _ = run_onnx(onnx_model.SerializeToString(), crops)
    every = list(quantisable(onnx_model))
    drift = []
    for keep in ([], every[:30], every):
        model = quantise(onnx_model, ranges, "fp8", keep)
        assert all("_dq" not in convolutions(model)[name].input[1] for name in keep)
        found, _ = run_emulated(model.SerializeToString(), crops)
        drift.append(np.linalg.norm(found - expected, axis=2).mean())
    assert drift[0] > drift[1] > drift[2]
    assert drift[2] < 1e-3


def test_what_is_not_quantised_can_be_halved(quantised, onnx_model):
    precision, model = quantised
    half = halve(model, precision)
    onnx.checker.check_model(half, full_check=True)
    kinds = {t.name: t.data_type for t in half.graph.initializer}
    for name, kind in {t.name: t.data_type for t in model.graph.initializer}.items():
        if name in quantisable(onnx_model) or name.endswith("_zero"):
            assert kinds[name] == kind, name
        elif name.endswith("_scale") or name.startswith("network."):
            assert kinds[name] == TensorProto.FLOAT16, name
    operators = itertools.groupby(sorted(node.op_type for node in half.graph.node))
    counts = {name: len(list(nodes)) for name, nodes in operators}
    assert counts["DequantizeLinear"] == counts["QuantizeLinear"] + 53
