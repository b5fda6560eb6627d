"""Eager ≡ folded ≡ exported: the same crops through all three, differences in pixels."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import update_bn

from lmk.export.graph.half import emulated
from lmk.export.graph.trace import DetectorGraph, fold
from lmk.runtime.errors import UserError
from lmk.runtime.model import INPUT, LANDMARKS, LIMITS_PX, SCORES, Precision, Reading, default_names
from lmk.train.network import LandmarkNetwork, ProjectedConv2d

if TYPE_CHECKING:
    import onnxruntime

FLAT_SCORE = 0.5  # below it less than half of a heat-map's mass is near its point: it has no peak
_BATCH = 8  # crops a run: bounds memory, and the last, smaller batch tests the dynamic axis

_CURES: dict[Precision, str] = {
    "fp32": "the graph is not what was trained; try other versions of torch, onnxscript or "
    "onnxruntime",
    "fp16": "verify on images of the category by --data, or export with --precision bf16 or fp32",
    "bf16": "verify on images of the category by --data, or export with --precision fp16 or fp32",
    "int8": "calibrate on other images of the category by --data, or export with --precision fp16",
    "fp8": "calibrate on other images of the category by --data, or export with --precision fp16",
}


class DriftError(UserError):
    """The exported detector does not find what the trained one does."""


def verify(
    eager: LandmarkNetwork,
    folded: LandmarkNetwork,
    onnx_model: bytes,
    crops: NDArray[np.uint8],
    names: Sequence[str] | None = None,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Run crops uint8 (N,S,S,3) through all three and return how far they are apart.

    eager is the trained network with its projections, folded the one without, both fp32; onnx_model
    is the file made of that in `precision`. In fp32 ONNX Runtime runs the file as it is, else as
    `emulated` describes. The report is ready for JSON: `precision`, `crops`, `limits_px`, `max_px`
    of all pairs, and per pair what `_differences` gives. Landmarks decide: above LIMITS_PX
    (Euclidean), or NaN, is a DriftError naming the worst one (by `names`). Scores are only
    reported: they count cells within a radius, and a cell on its rim may fall to either side.
    """
    size = eager.config.input_size
    if crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3) or not len(crops):
        raise ValueError(
            f"crops: got {crops.dtype} {crops.shape}, expected uint8 (N, {size}, {size}, 3), N ≥ 1"
        )
    engine, run = ("onnxruntime", run_onnx) if precision == "fp32" else ("emulated", run_emulated)
    found = {
        "eager": run_eager(eager, crops),
        "folded": run_eager(folded, crops),
        engine: run(onnx_model, crops),
    }
    pairs = {
        f"{one}-{other}": _differences(found[one], found[other])
        for one, other in itertools.combinations(found, 2)
    }
    names = names or default_names(found["eager"][0].shape[1])
    for pair, differences in pairs.items():
        of_file = engine in pair.split("-")
        _check_limits(pair, differences, names, precision if of_file else "fp32")
    return {
        "precision": precision,
        "crops": len(crops),
        "limits_px": LIMITS_PX[precision],
        "max_px": max(pair["max_px"] for pair in pairs.values()),
        "pairs": pairs,
    }


def verify_randomised(
    model: LandmarkNetwork, filled: Callable[[LandmarkNetwork], bytes], seed: int = 0
) -> dict[str, Any]:
    """`verify` on other weights: what is near the identity or zero in `model` cannot hide a fault.

    `filled` makes the ONNX file of an unfolded network like `model`: the one that made its own.
    """
    crops = probe_crops(model.config.input_size, _BATCH, seed)
    eager = randomised(model, crops, seed)
    try:
        return verify(eager, fold(eager), filled(eager), crops)
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
    update_bn([torch.from_numpy(crops).permute(0, 3, 1, 2) / 255], model)
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


def run_eager(network: LandmarkNetwork, crops: NDArray[np.uint8]) -> Reading:
    """The detector of `network` in PyTorch, in batches."""
    graph = DetectorGraph(network)
    with torch.inference_mode():
        parts = [graph(batch) for batch in torch.from_numpy(crops).split(_BATCH)]
    landmarks, scores = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return landmarks, scores


def run_onnx(onnx_model: bytes, crops: NDArray[np.uint8]) -> Reading:
    """The file `onnx_model` in ONNX Runtime on the CPU, in batches."""
    return _run(open_session(onnx_model), crops)


def run_emulated(onnx_model: bytes, crops: NDArray[np.uint8]) -> Reading:
    """`emulated` of the file `onnx_model` in ONNX Runtime on the CPU, in batches.

    Nothing is optimised: ONNX Runtime 1.31 drops a ReLU before a float8 Q as if Q were unsigned.
    """
    model = emulated(onnx.load_from_string(onnx_model))
    return _run(open_session(model.SerializeToString(), optimised=False), crops)


def open_session(onnx_model: bytes, optimised: bool = True) -> onnxruntime.InferenceSession:
    """A session on the CPU with PyTorch's thread count; not `optimised`: one operator at a time."""
    import onnxruntime  # 0.2 s

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(onnx_model, options, ["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, crops: NDArray[np.uint8]) -> Reading:
    parts = [
        session.run([LANDMARKS, SCORES], {INPUT: crops[start : start + _BATCH]})
        for start in range(0, len(crops), _BATCH)
    ]
    landmarks, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return landmarks, scores


def _uniform(
    shape: Sequence[int], low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _differences(one: Reading, other: Reading) -> dict[str, Any]:
    """How far two results are apart; landmarks by Euclidean distance in crop pixels.

    `mean_px`, `p99_px` and `max_px` over all; the same for each landmark (`landmarks_mean_px`, …: K
    values), and for `confident` and `flat` heat-maps of `one`, with the `share` that they are;
    `scores_max`.
    """
    distance = np.linalg.norm(one[0].astype(np.float64) - other[0], axis=2)  # (N,K)
    flat = one[1] < FLAT_SCORE
    return {
        **_statistics(distance.ravel()),
        "landmarks_mean_px": distance.mean(axis=0).tolist(),
        "landmarks_p99_px": np.percentile(distance, 99, axis=0).tolist(),
        "landmarks_max_px": distance.max(axis=0).tolist(),
        "confident": {"share": float(1 - flat.mean()), **_statistics(distance[~flat])},
        "flat": {"share": float(flat.mean()), **_statistics(distance[flat])},
        "scores_max": float(np.abs(one[1] - other[1]).max()),
    }


def _statistics(distance: NDArray[np.float64]) -> dict[str, float]:
    if not distance.size:
        return {}
    return {
        "mean_px": float(distance.mean()),
        "p99_px": float(np.percentile(distance, 99)),
        "max_px": float(distance.max()),
    }


def _check_limits(
    pair: str, differences: dict[str, Any], names: Sequence[str], precision: Precision
) -> None:
    """Raise DriftError unless `differences` of the two in `pair` stay within the limits."""
    for statistic, limit in LIMITS_PX[precision].items():
        if differences[f"{statistic}_px"] <= limit:  # this way round NaN is beyond it
            continue
        each = np.array(differences[f"landmarks_{statistic}_px"])
        worst = int(np.where(np.isnan(each), np.inf, each).argmax())
        raise DriftError(
            f"landmark '{names[worst]}': got a drift of {each[worst]:.4g} px ({statistic}) between "
            f"{' and '.join(pair.split('-'))}, expected at most {limit} px in {precision}; "
            f"{_CURES[precision]}"
        )
