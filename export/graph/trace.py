"""Folded network -> ONNX: one graph from uint8 crops to landmarks and scores."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from lmk.runtime.files import write_bytes
from lmk.runtime.model import INPUT, LANDMARKS, SCORES, Contract, wire
from lmk.train.network import LandmarkNetwork, find

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

# The opset that torch's exporter is written in, hence no conversion pass; and one that every
# reader takes: TensorRT 10 (9 to 20) and 11 (9 to 25), ONNX Runtime since 1.14.
OPSET = 18
BATCH = "batch"  # name of the dynamic axis


class DetectorGraph(nn.Module):
    """What is exported: crops uint8 (B,S,S,3) RGB -> landmarks (B,K,2) float32, scores (B,K).

    Landmarks are (x, y) in crop pixels, the centre of the top-left one is (0, 0). Scaling,
    soft-argmax and scores are those of training. Raises ValueError for a network in training mode,
    whose batch-norms would make a crop's landmarks depend on its batch.
    """

    def __init__(self, network: LandmarkNetwork) -> None:
        super().__init__()
        if network.training:
            raise ValueError("network: got one in training mode, expected network.eval()")
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Cast before anything else: TensorRT takes uint8 only as an input that goes into a Cast.
        images = image.float().permute(0, 3, 1, 2) / 255
        return find(self.network, images)


def trace(network: LandmarkNetwork) -> ONNXProgram:
    """Trace the detector of `network` once, seconds; `to_onnx` makes files of it, also others'.

    The batch axis is dynamic: the exporter raises if any step fixes it.
    """
    size = network.config.input_size
    crops = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # a batch of 1 would be a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own internals; `verify` judges the result
        program = torch.onnx.export(
            DetectorGraph(network).eval(),
            (crops,),
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            input_names=[INPUT],
            output_names=[LANDMARKS, SCORES],
            opset_version=OPSET,
            optimize=False,  # `to_onnx` does it: then the weights can still be exchanged by name
            verbose=False,
        )
    assert program is not None  # of a path it would return None
    return program


def to_onnx(program: ONNXProgram, network: LandmarkNetwork) -> onnx.ModelProto:
    """`program` with the weights of `network`, optimised, without the exporter's notes.

    `network` is the one traced or any other of the same configuration. Constants are folded, and
    the stem's and `conv_last`'s batch-norms go into their convolutions.
    """
    from onnxscript import optimizer  # 0.3 s

    weights = DetectorGraph(network).state_dict()
    program.apply_weights({n: w for n, w in weights.items() if not n.endswith("batches_tracked")})
    return _without_notes(optimizer.optimize(program.model_proto))


def write_onnx(model: onnx.ModelProto, contract: Contract, path: Path) -> None:
    """Write `model` with `contract` as its metadata, checked and sealed, atomically.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    stamped = onnx.ModelProto()
    stamped.CopyFrom(model)
    onnx.helper.set_model_props(stamped, contract.to_metadata())
    onnx.checker.check_model(stamped, full_check=True)
    write_bytes(path, wire.seal(stamped.SerializeToString()))


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what the exporter notes on every node: stack traces with this machine's paths."""
    graph = model.graph
    lists = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for owner in itertools.chain([graph], *lists):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    return model
