"""fp32 graph + images of the category -> the same graph with Q and DQ before its convolutions.

Quantised are the input and the weight of every convolution but the stem's and the two after the
hourglass: the first sees pixels, which have more levels than eight bits of a symmetric scale give
them; the last two make the heat-maps, whose differences times ten decide the landmark. Leaving
`conv_last` out, which is little work, takes a quarter to a third off the drift. Nothing else is
quantised: TensorRT fuses DQ -> Conv, and batch-norm -> ReLU -> Q in front of it, and the residual
sums stay in the half type, so that errors do not add up from block to block. Scales are symmetric,
as TensorRT wants them: one a tensor for inputs, one an output channel for weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lmk.export.graph.half import copy_of, set_nodes
from lmk.export.graph.verify import open_session
from lmk.runtime.model import INPUT, Precision

QUANTISED: tuple[Precision, ...] = ("int8", "fp8")
# Share of an input's values that may lie beyond its range. Clipping none lets one outlier coarsen
# the steps of all; a tenfold share already clips the peaks that a landmark is made of.
_CLIPPED = 1e-5
_BATCH = 4  # crops a run: the inputs of all convolutions are held at once
_TYPES = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
_LARGEST = {"int8": 127.0, "fp8": 448.0}
_OPSET = 19  # the first that defines Q and DQ on float8, and with float16 scales
_HEAD = 2  # convolutions after the last block: `conv_last` and `head`
_SMALLEST_SCALE = float(np.finfo(np.float16).tiny)  # in float16 with all of its digits


def calibrate(model: ModelProto, crops: NDArray[np.uint8]) -> dict[str, float]:
    """The range of every convolution's input on `crops` uint8 (N,S,S,3): input -> magnitude.

    model is that of `to_onnx`. Of each tensor's values on all crops, 1 in 100,000 are larger.
    """
    observed = copy_of(model)
    names = sorted({node.input[0] for node in quantisable(model).values()})
    for name in names:
        observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(observed.SerializeToString())
    largest = {name: np.empty(0, np.float32) for name in names}
    for start in range(0, len(crops), _BATCH):
        found = session.run(names, {INPUT: crops[start : start + _BATCH]})
        for name, values in zip(names, found, strict=True):
            count = 1 + int(_CLIPPED * values[0].size * len(crops))
            every = np.append(largest[name], np.abs(values))
            largest[name] = np.partition(every, -count)[-count:] if len(every) > count else every
    return {name: float(values.min()) for name, values in largest.items()}


def quantise(
    model: ModelProto,
    ranges: Mapping[str, float],
    precision: Precision,
    keep: Collection[str] = (),
) -> ModelProto:
    """A copy of `model` with Q and DQ of "int8" or "fp8" (E4M3) around what `calibrate` measured.

    Weights are stored quantised. keep: weights of convolutions to leave as they are. The scales
    are float32 that float16 holds exactly, for `halve` comes after.
    """
    quantised = copy_of(model)
    graph = quantised.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    chosen = quantisable(model).keys() - set(keep)
    nodes: list[NodeProto] = []
    done: set[str] = set()  # an input may have two readers
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in chosen:
            source, weight = node.input[:2]
            if source not in done:
                done.add(source)
                graph.initializer.extend(_input_scale(source, ranges[source], precision))
                given = [f"{source}_scale", f"{source}_zero"]
                nodes += [
                    helper.make_node("QuantizeLinear", [source, *given], [f"{source}_q"]),
                    helper.make_node("DequantizeLinear", [f"{source}_q", *given], [f"{source}_dq"]),
                ]
            graph.initializer.append(_quantise_weight(weights[weight], precision))
            given = [weight, f"{weight}_scale"]
            nodes.append(helper.make_node("DequantizeLinear", given, [f"{weight}_dq"], axis=0))
            node.input[0], node.input[1] = f"{source}_dq", f"{weight}_dq"
        nodes.append(node)
    set_nodes(graph, nodes)
    quantised.opset_import[0].version = _OPSET
    return quantised


def quantisable(model: ModelProto) -> dict[str, NodeProto]:
    """The convolutions to quantise by the names of their weights: not the stem, not the head."""
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    return {node.input[1]: node for node in convs[1:-_HEAD]}


def _input_scale(name: str, magnitude: float, precision: Precision) -> list[TensorProto]:
    """Scale and zero point of an input; the latter only tells Q its type."""
    scale = max(magnitude / _LARGEST[precision], _SMALLEST_SCALE)
    return [
        numpy_helper.from_array(np.array(np.float16(scale), np.float32), f"{name}_scale"),
        helper.make_tensor(f"{name}_zero", _TYPES[precision], (), [0]),
    ]


def _quantise_weight(weight: TensorProto, precision: Precision) -> TensorProto:
    """Replace `weight` (O,I,kh,kw) by its quantised values; return the scales (O,)."""
    values = numpy_helper.to_array(weight)
    limit = _LARGEST[precision]
    scale = np.abs(values).max(axis=(1, 2, 3)) / limit
    scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float16).astype(np.float32)
    steps = np.clip(values / scale[:, None, None, None], -limit, limit)
    if precision == "int8":
        steps = np.rint(steps)
    kind = helper.tensor_dtype_to_np_dtype(_TYPES[precision])
    weight.CopyFrom(numpy_helper.from_array(steps.astype(kind), weight.name))
    return numpy_helper.from_array(scale, f"{weight.name}_scale")
