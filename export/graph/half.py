"""fp32 graph -> the same graph in half precision, written into its tensors' types.

TensorRT 11 has no precision flags: an engine computes in the types that the graph states. Here the
network, from its first convolution to the heat-maps, becomes float16 or bfloat16 between two Casts.
The scaling of the pixels before it, and everything after the heat-maps, stay float32: soft-max of
ten times the logits, expectation, scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lmk.runtime.errors import UserError
from lmk.runtime.model import Precision

HALF_TYPES: dict[Precision, int] = {
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.FLOAT16,  # what is not quantised
    "fp8": TensorProto.FLOAT16,
}
# The first opset that defines Conv and AveragePool on bfloat16; else it changes none of ours.
_BF16_OPSET = 22
_FLOAT_INPUTS = {"Resize": (1, 2)}  # roi and scales are float32 in every graph


def halve(model: ModelProto, precision: Precision) -> ModelProto:
    """A copy of `model` whose network computes in the half type of `precision`.

    model is that of `to_onnx`, or of `quantise`, whose integers stay. Every weight is rounded once;
    input and outputs keep their types. Raises UserError naming a weight that is too large for
    float16.
    """
    half = copy_of(model)
    before, network, after = split(half.graph)
    weights = {tensor.name: tensor for tensor in half.graph.initializer}
    for name in dict.fromkeys(name for node in network for name in _typed_inputs(node)):
        if name in weights and weights[name].data_type == TensorProto.FLOAT:
            weights[name].CopyFrom(_rounded(weights[name], HALF_TYPES[precision]))
    pixels, heatmaps = network[0].input[0], network[-1].output[0]
    network[0].input[0], network[-1].output[0] = f"{pixels}_half", f"{heatmaps}_half"
    narrow = _cast(pixels, f"{pixels}_half", HALF_TYPES[precision])
    widen = _cast(f"{heatmaps}_half", heatmaps, TensorProto.FLOAT)
    set_nodes(half.graph, [*before, narrow, *network, widen, *after])
    if precision == "bf16":
        half.opset_import[0].version = _BF16_OPSET
    return half


def emulated(model: ModelProto) -> ModelProto:
    """`model` for any CPU: in float32, rounded to the half type after every operator.

    This is what a device finds that stores each operator's result; one that fuses operators rounds
    less often. ONNX Runtime's CPU cannot run `model` itself faithfully: it has no bfloat16
    convolution, and computes chains of float16 operators without rounding between them.
    """
    single = copy_of(model)
    kinds: dict[str, int] = {}  # half tensor -> its type
    for tensor in single.graph.initializer:
        if tensor.data_type in HALF_TYPES.values():
            kinds[tensor.name] = tensor.data_type
            exact = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))
    nodes: list[NodeProto] = []
    for node in single.graph.node:
        kind = _half_result(node, kinds)
        nodes.append(node)
        if node.op_type == "Cast" and kind:
            node.attribute[0].i = TensorProto.FLOAT
        if kind:
            name = node.output[0]
            kinds[name] = kind
            node.output[0] = f"{name}_exact"
            nodes += [
                _cast(f"{name}_exact", f"{name}_rounded", kind),
                _cast(f"{name}_rounded", name, TensorProto.FLOAT),
            ]
    set_nodes(single.graph, nodes)
    return single


def split(graph: GraphProto) -> tuple[list[NodeProto], list[NodeProto], list[NodeProto]]:
    """The nodes before the network, those from its first convolution to its last, and the rest."""
    nodes = list(graph.node)
    convs = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    first, last = convs[0], convs[-1] + 1
    return nodes[:first], nodes[first:last], nodes[last:]


def copy_of(model: ModelProto) -> ModelProto:
    """A copy without the types of inner tensors, which are about to change."""
    copied = ModelProto()
    copied.CopyFrom(model)
    copied.graph.ClearField("value_info")
    return copied


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make `nodes` those of `graph`; they may be its own."""
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(kept)


def _typed_inputs(node: NodeProto) -> Sequence[str]:
    """Those of the inputs that take the type of the network."""
    excepted = _FLOAT_INPUTS.get(node.op_type, ())
    return [name for index, name in enumerate(node.input) if index not in excepted]


def _half_result(node: NodeProto, kinds: dict[str, int]) -> int | None:
    """The half type of the node's output, if it is one; kinds: those of the tensors before it."""
    if node.op_type == "Cast":
        target = node.attribute[0].i
        return target if target in HALF_TYPES.values() else None
    if node.op_type == "QuantizeLinear":
        return None
    return next((kinds[name] for name in _typed_inputs(node) if name in kinds), None)


def _rounded(tensor: TensorProto, kind: int) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):  # it is looked for below
        half = values.astype(helper.tensor_dtype_to_np_dtype(kind))
    if not np.isfinite(half.astype(np.float32)).all():
        raise UserError(
            f"weight '{tensor.name}': got {np.abs(values).max():.4g}, expected at most 65504 in "
            "fp16; export with --precision bf16 or fp32"
        )
    return numpy_helper.from_array(half, tensor.name)


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{source}", to=kind)
