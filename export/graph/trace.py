"""Adapted network -> plain network -> ONNX: one graph from uint8 crops to landmarks and scores.

W·theta becomes the convolution's weight (paper, eq. 3). What is promised is "no projection left",
not "no batch-norm left". The residual blocks are pre-activation (batch-norm -> ReLU -> convolution)
and concatenate raw convolution outputs, so a block's batch-norm has a ReLU between it and the next
convolution, and other readers on its other side. Only the stem's and `conv_last`'s batch-norms
could fold further; the exporter's optimiser does that.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from lmk.runtime.files import write_bytes
from lmk.runtime.model import INPUT, LANDMARKS, SCORES, Contract, wire
from lmk.train.network import HYPER_PARAMETERS, LandmarkNetwork, ProjectedConv2d, find

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

# The opset that torch's exporter is written in, hence no conversion pass; and one that every
# reader takes: TensorRT 10 (9 to 20) and 11 (9 to 25), ONNX Runtime since 1.14.
OPSET = 18
BATCH = "batch"  # name of the dynamic axis


def fold(model: LandmarkNetwork) -> LandmarkNetwork:
    """Return a copy of `model` for inference without any ProjectedConv2d; `model` is untouched.

    The copy is in eval mode, needs no gradients and computes the same heat-maps up to rounding. A
    model without projections (methods `finetune` and `scratch`) is only copied.
    """
    folded = copy.deepcopy(model)
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ProjectedConv2d):
                setattr(module, name, fold_conv(child))
    return folded.eval().requires_grad_(False)


def fold_conv(layer: ProjectedConv2d) -> nn.Conv2d:
    """The plain convolution that computes what `layer` does, of its dtype and on its device.

    Weight (O,I,kh,kw) = W·theta and bias (O,) = W·b are multiplied in float64 and rounded once:
    the product is then as exact as the format that stores it.
    """
    weight, bias = copy.deepcopy(layer).double().folded()
    plain = nn.Conv2d(
        **{name: getattr(layer, name) for name in HYPER_PARAMETERS},
        bias=bias is not None,
        device="meta",  # the initial weight is never used
    )
    plain.weight = nn.Parameter(weight.detach().to(layer.projection.dtype))
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().to(layer.projection.dtype))
    return plain


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
    model = optimizer.optimize(program.model_proto)
    graph = model.graph  # without the notes on every node: stack traces with this machine's paths
    lists = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for owner in itertools.chain([graph], *lists):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    return model


def write_onnx(model: onnx.ModelProto, contract: Contract, path: Path) -> None:
    """Write `model` with `contract` as its metadata, checked and sealed, atomically.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    stamped = onnx.ModelProto()
    stamped.CopyFrom(model)
    onnx.helper.set_model_props(stamped, contract.to_metadata())
    onnx.checker.check_model(stamped, full_check=True)
    write_bytes(path, wire.seal(stamped.SerializeToString()))
