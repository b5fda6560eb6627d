"""Typed network or built engine -> how many layers compute in which precision."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from typing import Any

from lmk.runtime.errors import UserError
from lmk.runtime.model import Precision

_logger = logging.getLogger(__name__)
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_QUANTISED = ("int8", "fp8")
_OTHERS: dict[Precision, tuple[str, ...]] = {  # what may be there beside that of the graph
    "fp32": (),
    "fp16": ("fp32",),
    "bf16": ("fp32",),
    "int8": ("fp32", "fp16", "bf16"),
    "fp8": ("fp32", "fp16", "bf16"),
}
# They move or convert numbers between layers, and most of them are fused away.
_NOT_COMPUTING = ("CONSTANT", "CAST", "QUANTIZE", "DEQUANTIZE")
# TensorRT 10 writes "Row major linear FP32" as one value, 11 the format and "Half" apart.
_WORDS = {
    "fp32": r"FP32|Float\b",
    "fp16": r"\bFP16|Half",
    "bf16": r"BF16|BFloat16",
    "int8": r"Int8",
    "fp8": r"FP8",
}


def count_layers(trt: Any, network: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Count what computes in each precision: all layers of `network`, its convolutions alone.

    Left out are computations of shapes, in integers, and what only converts. A quantised
    convolution stands in the network as one of the floats that come out of its `DequantizeLinear`;
    it is counted by what goes into these.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    every: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    for layer in layers:
        kind = layer.type.name
        dtype = layer.get_output(0).dtype.name
        if kind in _NOT_COMPUTING or dtype not in _NAMES:
            continue
        precision = _NAMES[dtype]
        if layer.type == trt.LayerType.CONVOLUTION:
            precision = _quantised(layer, makers) or precision
            convolutions[precision] += 1
        every[precision] += 1
    return dict(every), dict(convolutions)


def _quantised(convolution: Any, makers: dict[str, Any]) -> str | None:
    """The precision that image and weights of `convolution` are dequantised from, if they are."""
    found = set()
    for index in (0, 1):
        tensor = convolution.get_input(index)  # no second one where the weights are constants
        maker = makers.get(tensor.name) if tensor is not None else None
        if maker is None or maker.type.name != "DEQUANTIZE":
            return None
        found.add(_NAMES.get(maker.get_input(0).dtype.name))
    return found.pop() if len(found) == 1 else None


def check_layers(
    precision: Precision, layers: dict[str, int], convolutions: dict[str, int]
) -> None:
    """Raise UserError unless the network computes in `precision`.

    fp16 and bf16: all convolutions do, around them is fp32 (see `precision` of the graph). int8 and
    fp8: some convolutions do, the others are of a float format. Nothing else may be there.
    """
    foreign = layers.keys() - {precision, *_OTHERS[precision]}
    mixed = precision not in _QUANTISED and len(convolutions) > 1
    if foreign or mixed or precision not in convolutions:
        raise UserError(
            f"engine: got convolutions of {shares(convolutions)} and layers of {shares(layers)}, "
            f"expected those of an ONNX file in {precision}; export the pack again"
        )


def shares(counts: dict[str, int]) -> str:
    """`53 int8 (95 %), 3 fp16 (5 %)`, most first."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{n} {name} ({100 * n / total:.0f} %)" for name, n in ordered) or "none"


def inspect_kernels(trt: Any, plan: bytes, log: Any) -> dict[str, int]:
    """Count the layers of the built engine by the precision they write; needs the GPU it is for.

    Several layers of the network become one of these. A plan that does not load is a warning in the
    log, and no count: it is built for this GPU, but TensorRT alone knows what its driver takes.
    """
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        _logger.warning("%s: cannot inspect what it built: %s", trt.__name__, log.lines[-1:])
        return {}
    inspector = engine.create_engine_inspector()
    return count_kernels(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def count_kernels(information: str) -> dict[str, int]:
    """Count the layers in the engine inspector's JSON by the precision of their first output.

    Layers without one known here, and plans built without details, count as "other".
    """
    counts: Counter[str] = Counter()
    for layer in json.loads(information).get("Layers", []):
        outputs = layer.get("Outputs") if isinstance(layer, dict) else None
        text = json.dumps(outputs[0] if outputs else "").replace(json.dumps(_name(outputs)), "")
        found = [name for name, words in _WORDS.items() if re.search(words, text)]
        counts[found[0] if len(found) == 1 else "other"] += 1
    return dict(counts)


def _name(outputs: Any) -> str:
    """A tensor's name, which may hold any word."""
    first = outputs[0] if outputs else {}
    return str(first.get("Name", "")) if isinstance(first, dict) else ""
