"""Template + core + pack -> the folded ONNX model of a category, without torch and onnx.

A template is the graph of an architecture without its weights. Beside it stands, for each weight,
from which tensors of core and pack it is computed: the same for all categories and methods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.model import gate, wire
from lmk.runtime.model.contract import LANDMARKS, SCORES, Contract
from lmk.runtime.model.weights import Arrays, read_weights

WEIGHT, OFFSET = TENSORS = ("naming.weight", "naming.offset")
_SHARES = "naming.shares"  # (K,M) of each landmark in a point's score
_BATCH = "batch"  # the name of the dynamic axis in every graph of ours

LAST_LAYERS = ("top", "conv_last", "bn_last", "head")  # what follows the hourglass
HEAD = "head"
_CURE = "make it again by `python -m lmk.export.graph.template`"
_RULES = {
    "name": gate.TEXT,
    "tensor": gate.TEXT,
    "shape": gate.Rule(
        "a shape of at most four sides",
        lambda value: (
            isinstance(value, list) and len(value) <= 4 and all(map(gate.SIZE.holds, value))
        ),
    ),
    "dtype": gate.one_of(*wire.DTYPES),
    "is_norm": gate.optional(gate.TRUTH),
    "norm": gate.optional(gate.TEXT),
    "epsilon": gate.optional(gate.number(0, 1)),
}
_BLOCK_CONV = re.compile(r"(^|\.)conv\d$")  # the convolutions of a residual block, without its skip


@dataclass(frozen=True)
class Weight:
    """One initialiser of the graph, and how it is made of the network's tensors."""

    name: str  # in the graph
    tensor: str  # in a core: "block1.conv1.weight"
    shape: tuple[int, ...]
    dtype: str  # a key of wire.DTYPES
    is_norm: bool = False  # of a batch-norm, else of a convolution
    norm: str = ""  # the batch-norm that is folded into this convolution, if any
    epsilon: float = 0.0  # of that batch-norm

    @property
    def layer(self) -> str:
        """The module that it belongs to: "block1.conv1"."""
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True)
class Template:
    """A graph without weights, and their recipe."""

    network: dict[str, Any]  # num_landmarks, width, input_size; skips, if it has none
    precision: str  # as in Contract
    # The serialised fields of ModelProto before and after its graph, and those of GraphProto before
    # and after its weights: put together in this order, they are the bytes that onnx would write.
    model: tuple[bytes, bytes]
    graph: tuple[bytes, bytes]
    weights: tuple[Weight, ...]
    versions: dict[str, str]  # libraries that made it

    def arrays(self) -> Arrays:
        """What is bytes, as `read_template` finds it in the file."""
        parts = {"model": self.model, "graph": self.graph}
        return {
            f"{name}_{place}": np.frombuffer(data, np.uint8)
            for name, pair in parts.items()
            for place, data in zip(("before", "after"), pair, strict=True)
        }

    def header(self) -> dict[str, Any]:
        """What is not bytes, ready for JSON."""
        weights = [{k: v for k, v in asdict(w).items() if v or k == "shape"} for w in self.weights]
        named = {"network": self.network, "precision": self.precision}
        return {**named, "weights": weights, "versions": self.versions}


def template_name(network: Mapping[str, Any], precision: str) -> str:
    """The file name of the template for an architecture."""
    sides = network["input_size"], network["num_landmarks"]
    width = f"{network['width']}{'' if network.get('skips', True) else '-lean'}"
    return "template-{}-{}-{}-{}.safetensors".format(width, *sides, precision)


def read_template(path: Path) -> Template:
    """Read what `lmk.export.graph.template.write_template` wrote.

    Raises UserError for a file that is damaged or of another version of this project.
    """
    arrays, header = read_weights(path, "template")
    parts = {name: value.tobytes() for name, value in arrays.items()}
    for each in header["weights"]:
        gate.check(each, _RULES, str(path), _CURE)
    try:
        weights = (Weight(**{**each, "shape": tuple(each["shape"])}) for each in header["weights"])
        return Template(
            network=header["network"],
            precision=header["precision"],
            model=(parts["model_before"], parts["model_after"]),
            graph=(parts["graph_before"], parts["graph_after"]),
            weights=tuple(weights),
            versions=header["versions"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: got a template of another version of lmk-toolkit ({error}); {_CURE}"
        ) from error


def compose(
    template: Template, core: Arrays, pack: Arrays, header: Mapping[str, Any], source: str
) -> bytes:
    """The ONNX model, without metadata, of a pack with `header` and its core.

    core is empty for a pack of the method `scratch`. W·theta, and a batch-norm that is folded into
    its convolution, are computed in float64 and rounded once. Raises UserError, about the pack
    `source`, for another architecture, a tensor that is missing, unexpected or of a wrong shape,
    or a value that the template's precision cannot hold.
    """
    if header["network"] != template.network:
        raise UserError(
            f"{source}: got a network of {header['network']}, expected the template's "
            f"{template.network}; use the template of that architecture"
        )
    expected = pack_tensors(template, header)
    for name in sorted(expected ^ pack.keys()):
        state = "missing" if name in expected else "unexpected"
        raise UserError(f"{source}: tensor '{name}' is {state}; make the pack again")
    tensors = {**core, **pack}
    weights = []
    for weight in template.weights:
        data = _rounded(_value(weight, tensors, source), weight, source).tobytes()
        weights.append(wire.encode_initializer(weight.name, weight.dtype, weight.shape, data))
    graph = b"".join([template.graph[0], *weights, template.graph[1]])
    if "naming" in header:
        graph = attach(graph, pack, header, source)
    return template.model[0] + wire.encode_graph(graph) + template.model[1]


def stamp(model: bytes, contract: Contract) -> bytes:
    """The ONNX `model` with `contract` as its metadata, sealed."""
    return wire.seal(model + wire.encode_metadata(contract.to_metadata()))


def pack_tensors(template: Template, header: Mapping[str, Any]) -> set[str]:
    """Names of the tensors that a pack with `header` must hold; see `category.new_category`."""
    names = set(TENSORS if "naming" in header else ())
    for weight in template.weights:
        layers = [weight.layer, weight.norm] if weight.norm else [weight.layer]
        for layer in layers:
            names |= _layer_tensors(weight, layer, header)
    return names


def _layer_tensors(weight: Weight, layer: str, header: Mapping[str, Any]) -> set[str]:
    last = layer.split(".")[0] in LAST_LAYERS
    trained = header["method"] != "finetune-last" or last
    if layer == weight.norm or weight.is_norm:
        learnt = ("weight", "bias") if trained else ()
        return {f"{layer}.{part}" for part in (*learnt, "running_mean", "running_var")}
    if header["method"] == "projection" and layer != HEAD:
        if header["scope"] == "all" or _BLOCK_CONV.search(layer):
            return {f"{layer}.projection"}
        trained = header["train_plain_convs"]
    return {weight.tensor} if trained else set()


def _value(weight: Weight, tensors: Arrays, source: str) -> NDArray[np.float64]:
    """What the initialiser holds, before rounding."""

    def get(name: str, *shape: int) -> NDArray[np.float64]:
        if name not in tensors:
            raise UserError(f"{source}: its core has no tensor '{name}'; train the core again")
        if tensors[name].shape != shape:
            raise UserError(
                f"{source}: tensor '{name}' has shape {tensors[name].shape}, expected {shape}; "
                "make the pack again"
            )
        return tensors[name].astype(np.float64)

    value = get(weight.tensor, *weight.shape)
    outputs = weight.shape[0]
    if f"{weight.layer}.projection" in tensors:
        projection = get(f"{weight.layer}.projection", outputs, outputs)
        value = (projection @ value.reshape(outputs, -1)).reshape(weight.shape)
    if weight.norm:
        gamma, beta, mean, var = (
            get(f"{weight.norm}.{part}", outputs)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(var + weight.epsilon)
        if len(weight.shape) == 1:  # the bias
            return (value - mean) * factor + beta
        value = value * factor[:, None, None, None]
    return value


def _rounded(value: NDArray[np.float64], weight: Weight, source: str) -> NDArray[Any]:
    """The value in the initialiser's type, little-endian; bfloat16 as uint16."""
    with np.errstate(over="ignore"):
        single = value.astype("<f4")
        result = single.astype("<f2") if weight.dtype == "float16" else single
    if not np.isfinite(result).all():
        raise UserError(
            f"{source}: '{weight.tensor}' holds {np.abs(value).max():.3g}, expected what fits "
            f"{weight.dtype}; use another precision"
        )
    if weight.dtype != "bfloat16":
        return result
    bits = single.view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")  # to nearest, ties to even


def attach(graph: bytes, pack: Arrays, header: Mapping[str, Any], source: str) -> bytes:
    """The serialised `graph`, whose outputs are the K landmarks, with the M named points instead.

    What is added stays in float32 whatever the network computes in. Raises UserError, about the
    pack `source`, for tensors of another shape than `header` says.
    """
    points, landmarks = len(header["landmark_names"]), header["network"]["num_landmarks"]
    for name, shape in ((WEIGHT, (points, landmarks)), (OFFSET, (points, 2))):
        if pack[name].shape != shape:
            raise UserError(
                f"{source}: tensor '{name}' has shape {pack[name].shape}, expected {shape}; "
                "name the points again"
            )
    found = {name: f"found_{name}" for name in (LANDMARKS, SCORES)}
    values = {
        WEIGHT: pack[WEIGHT],
        OFFSET: pack[OFFSET],
        _SHARES: shares(pack[WEIGHT]).T,
    }
    fields = [
        wire.encode_node("MatMul", [WEIGHT, found[LANDMARKS]], "weighed"),  # (M,K) (B,K,2)
        wire.encode_node("Add", ["weighed", OFFSET], LANDMARKS),
        wire.encode_node("MatMul", [found[SCORES], _SHARES], SCORES),  # (B,K) (K,M)
        *(
            wire.encode_initializer(name, "float32", value.shape, value.astype("<f4").tobytes())
            for name, value in values.items()
        ),
        wire.encode_output(LANDMARKS, [_BATCH, points, 2]),
        wire.encode_output(SCORES, [_BATCH, points]),
    ]
    return wire.extend_graph(graph, fields, found)


def shares(weight: NDArray[Any]) -> NDArray[np.float64]:
    """What part each landmark has in each point's score: (M,K) in [0, 1], rows sum to 1."""
    size = np.abs(weight.astype(np.float64))
    return size / size.sum(axis=1, keepdims=True)
