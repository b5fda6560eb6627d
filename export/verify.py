"""Eager ≡ folded ≡ ONNX Runtime: the same crops through all three, differences in pixels."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import update_bn

from lmk.export.fold import fold
from lmk.export.graph import DetectorGraph, to_onnx
from lmk.runtime.contract import INPUT, LANDMARKS, SCORES, default_names
from lmk.runtime.errors import UserError
from lmk.train.hourglass import LandmarkNetwork
from lmk.train.projection import ProjectedConv2d

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

TOLERANCE_PX = 0.01  # in fp32, anywhere; rounding alone stays 10 to 100 times below it
_BATCH = 8  # crops a run: bounds memory, and the last, smaller batch tests the dynamic axis
Found = tuple[NDArray[np.float32], NDArray[np.float32]]  # landmarks (N,K,2), scores (N,K)


class DriftError(UserError):
    """The exported detector does not find what the trained one does."""


def verify(
    eager: LandmarkNetwork,
    folded: LandmarkNetwork,
    onnx_model: bytes,
    crops: NDArray[np.uint8],
    names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Run crops uint8 (N,S,S,3) through all three and return how far they are apart.

    eager is the trained network with its projections, folded the one without, onnx_model the file
    made of that. The report is ready for JSON: `crops`, `tolerance_px`, `max_px`, and per pair
    `max_px`, `mean_px`, `landmarks_max_px` (K values) and `scores_max`. Landmarks decide: above
    0.01 px (Euclidean), or NaN, is a DriftError naming the worst one (by `names`). Scores are only
    reported: they count cells within a radius, and a cell on its rim may fall to either side.
    """
    _check_crops(crops, eager.config.input_size)
    found = {
        "eager": run_eager(eager, crops),
        "folded": run_eager(folded, crops),
        "onnxruntime": run_onnx(onnx_model, crops),
    }
    pairs = {
        f"{one}-{other}": _differences(found[one], found[other])
        for one, other in itertools.combinations(found, 2)
    }
    report: dict[str, Any] = {
        "crops": len(crops),
        "tolerance_px": TOLERANCE_PX,
        "max_px": float(np.max([pair["max_px"] for pair in pairs.values()])),  # max() may lose NaN
        "pairs": pairs,
    }
    if not report["max_px"] <= TOLERANCE_PX:  # this way round it is also true of NaN
        raise _drift_error(pairs, names or default_names(eager.config.num_landmarks))
    return report


def verify_randomised(
    model: LandmarkNetwork, program: ONNXProgram, seed: int = 0
) -> dict[str, Any]:
    """`verify` on other weights: what is near the identity or zero in `model` cannot hide a fault.

    `program` is the trace of the folded `model`; its graph, filled with random weights, is the one
    that will be filled with the real ones.
    """
    crops = probe_crops(model.config.input_size, _BATCH, seed)
    eager = randomised(model, crops, seed)
    folded = fold(eager)
    try:
        return verify(eager, folded, to_onnx(program, folded).SerializeToString(), crops)
    except DriftError as error:
        raise DriftError(f"self-check with random weights: {error}") from None


def randomised(model: LandmarkNetwork, crops: NDArray[np.uint8], seed: int = 0) -> LandmarkNetwork:
    """A copy of `model`, in eval mode, with random projections, batch-norms and head weights.

    W is an orthogonal matrix with its rows scaled by 0.5 to 1.5, so no signal is lost. Running
    statistics are those of `crops` (N,S,S,3), then perturbed: arbitrary ones would let activations
    grow from block to block until the soft-max saturates and any error looks like none.
    """
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model).requires_grad_(False).eval()
    for module in model.modules():
        if isinstance(module, ProjectedConv2d):
            noise = torch.randn(module.projection.shape, generator=generator)
            scale = _uniform((module.out_channels, 1), 0.5, 1.5, generator)
            module.projection.copy_(torch.linalg.qr(noise).Q * scale)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(_uniform(module.weight.shape, 0.5, 1.5, generator))
            module.bias.copy_(_uniform(module.bias.shape, -0.3, 0.3, generator))
    nn.init.normal_(model.head.weight, std=model.config.width**-0.5, generator=generator)
    update_bn([_network_input(crops)], model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            mean, var = module.running_mean, module.running_var
            assert mean is not None and var is not None
            mean += var.sqrt() * _uniform(mean.shape, -0.3, 0.3, generator)
            var *= _uniform(var.shape, 0.5, 2.0, generator)
    return model


def probe_crops(size: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Smooth textured crops uint8 (count,size,size,3), for when no real image is at hand.

    Noise at five scales, each half as strong as the coarser one before: white noise would be
    averaged away by the network and leave the heat-maps flat.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(count, 3, size, size)
    for octave in range(5):
        noise = torch.randn(count, 3, 3 * 2**octave, 3 * 2**octave, generator=generator)
        image += F.interpolate(noise, (size, size), mode="bicubic") * 0.5**octave
    spread, centre = torch.std_mean(image, dim=(1, 2, 3), keepdim=True)
    pixels = (128 + 60 * (image - centre) / spread).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def run_eager(network: LandmarkNetwork, crops: NDArray[np.uint8]) -> Found:
    """The detector of `network` in PyTorch, in batches."""
    graph = DetectorGraph(network)
    with torch.inference_mode():
        parts = [graph(batch) for batch in torch.from_numpy(crops).split(_BATCH)]
    landmarks, scores = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return landmarks, scores


def run_onnx(onnx_model: bytes, crops: NDArray[np.uint8]) -> Found:
    """The file `onnx_model` in ONNX Runtime on the CPU, in batches, with PyTorch's thread count."""
    import onnxruntime  # 0.2 s

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx_model, options, ["CPUExecutionProvider"])
    parts = [
        session.run([LANDMARKS, SCORES], {INPUT: crops[start : start + _BATCH]})
        for start in range(0, len(crops), _BATCH)
    ]
    landmarks, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return landmarks, scores


def _network_input(crops: NDArray[np.uint8]) -> torch.Tensor:
    """Crops (N,S,S,3) -> what the network takes: (N,3,S,S) in [0, 1]."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2) / 255


def _uniform(
    shape: Sequence[int], low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _differences(one: Found, other: Found) -> dict[str, Any]:
    """How far two results are apart; landmarks by Euclidean distance in crop pixels."""
    distance = np.linalg.norm(one[0].astype(np.float64) - other[0], axis=2)  # (N,K)
    return {
        "max_px": float(distance.max()),
        "mean_px": float(distance.mean()),
        "landmarks_max_px": [float(value) for value in distance.max(axis=0)],
        "scores_max": float(np.abs(one[1] - other[1]).max()),
    }


def _drift_error(pairs: dict[str, dict[str, Any]], names: Sequence[str]) -> DriftError:
    table = np.array([pair["landmarks_max_px"] for pair in pairs.values()])  # (pairs, K)
    worst = np.where(np.isnan(table), np.inf, table).argmax()
    pair, landmark = divmod(int(worst), table.shape[1])
    return DriftError(
        f"landmark '{names[landmark]}': got a drift of {table[pair, landmark]:.4g} px between "
        f"{' and '.join(list(pairs)[pair].split('-'))}, expected at most {TOLERANCE_PX} px; "
        "the graph is not what was trained; try other versions of torch, onnxscript or onnxruntime"
    )


def _check_crops(crops: NDArray[np.uint8], size: int) -> None:
    if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3) or not len(crops):
        raise ValueError(
            f"crops: got {crops.dtype} {crops.shape}, expected uint8 (N, {size}, {size}, 3), N ≥ 1"
        )
