"""Work and traffic of graphs, ceilings of this machine."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lmk.benchmarks.runners.roofline import Ceilings, Cost, arithmetic, count, highest, measure
from lmk.runtime.model import wire
from lmk.runtime.model.template import read_template

ZOO = Path(__file__).parents[3] / "zoo"


def graph(nodes, weights, shape=("batch", 3, 8, 8)):
    tensors = [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in weights.items()]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])


def test_convolution_is_counted_as_by_hand():
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    model = graph([node], {"w": (16, 3, 3, 3), "b": (16,)})
    # 16 channels of 4x4 cells, each of 3x3x3 multiply-adds, for each of five images
    assert count(model, 5) == Cost(
        flops=5 * 2 * 16 * 4 * 4 * 27, elements=5 * 3 * 64 + 16 * 27 + 16 + 5 * 16 * 16
    )


def test_groups_and_products_are_counted():
    grouped = helper.make_node("Conv", ["x", "w"], ["y"], group=3)
    assert count(graph([grouped], {"w": (3, 1, 1, 1)}), 1).flops == 2 * 3 * 64
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert count(graph([product], {"w": (8, 7)}), 2).flops == 2 * 2 * 3 * 8 * 8 * 7
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)
    assert count(graph([gemm], {"w": (6, 4)}, (6, 5)), 1).flops == 2 * 5 * 6 * 4


def test_elementwise_operators_are_free():
    assert count(graph([helper.make_node("Relu", ["x"], ["y"])], {}), 1) == Cost(0, 0)


def test_unknown_shape_is_refused():
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": (8, 7)}, None)
    with pytest.raises(ValueError, match="its shape is not known"):
        count(model, 1)


def test_full_network_takes_4_1_gflop_an_image():
    template = read_template(ZOO / "template-256-128-10-fp32.safetensors")
    weights = [
        wire.encode_initializer(w.name, w.dtype, w.shape, bytes(4 * int(np.prod(w.shape))))
        for w in template.weights
    ]
    body = b"".join([template.graph[0], *weights, template.graph[1]])
    data = template.model[0] + wire.encode_graph(body) + template.model[1]
    model = onnx.load_model_from_string(data)
    one, eight = count(model, 1), count(model, 8)
    assert one.flops == pytest.approx(4.1e9, rel=0.01)
    assert eight.flops == 8 * one.flops
    # The weights move once, however many images there are.
    assert 8 * one.elements - eight.elements == pytest.approx(7 * 6.2e6, rel=0.05)


def test_share_is_of_the_nearer_ceiling():
    ceilings = Ceilings({"fp32": 100.0, "bf16": 400.0}, bandwidth=1000.0)
    assert ceilings.share(Cost(200, 10), "fp32", 4.0) == 0.5  # by arithmetic: 2 s
    assert ceilings.share(Cost(200, 1000), "fp32", 8.0) == 0.5  # by memory: 4000 bytes, 4 s
    assert ceilings.share(Cost(200, 1000), "bf16", 8.0) == 0.25  # its values are half as large
    assert ceilings.share(Cost(200, 1000), "int8", 8.0) is None


def test_ceilings_are_measured_for_what_is_computed_in(monkeypatch):
    monkeypatch.setattr("lmk.benchmarks.runners.roofline._quickest", lambda call, device: 0.5)
    found = measure(torch.device("cpu"), ["fp32", "fp32", "fp16", "int8"])
    assert set(found.flops) == {"fp32"}
    assert found.flops["fp32"] == 2 * 2 * 8 * 256 * 32 * 32 * 256 * 9  # of the convolution
    assert found.bandwidth == 2 * 2 * 256 * 2**20
    assert highest(found, Ceilings({"fp32": 1.0}, 1e15)) == Ceilings(found.flops, 1e15)


def test_arithmetic_of_fp32_is_put_back():
    before = torch.backends.cudnn.allow_tf32
    with arithmetic("tf32"):
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
        with arithmetic("fp32"):
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
