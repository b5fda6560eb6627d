"""fp32 graph -> the graph in the precision asked for, as fast as the limits on drift allow."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from lmk.export.graph.half import halve
from lmk.export.graph.quantise import QUANTISED, calibrate, quantisable, quantise
from lmk.export.graph.verify import DriftError, run_emulated, run_onnx, verify
from lmk.runtime.errors import UserError
from lmk.runtime.model import Precision
from lmk.runtime.terminal import progress
from lmk.train.network import LandmarkNetwork

_FEWEST = 16  # images to calibrate and to verify with
_KEPT = (2, 4, 8, 16)  # convolutions to leave in fp16, tried in turn; there are 53 to quantise
_RANKING_CROPS = 8
log = logging.getLogger(__name__)


def typed_graph(
    eager: LandmarkNetwork,
    folded: LandmarkNetwork,
    single: ModelProto,
    crops: NDArray[np.uint8],
    names: Sequence[str],
    precision: Precision,
) -> tuple[ModelProto, dict[str, Any]]:
    """The graph in `precision` and what `verify` reports of it.

    single is the graph in fp32 of the network `folded`, made from `eager`. crops uint8 (N,S,S,3):
    for int8 and fp8 those of the category; every other one calibrates, the rest verify, and the
    report has `calibration_crops` and `kept`, the weights of the convolutions that had to stay in
    fp16. Raises DriftError over the limits, UserError for too few crops.
    """

    def verified(model: ModelProto, on: NDArray[np.uint8]) -> dict[str, Any]:
        return verify(eager, folded, model.SerializeToString(), on, names, precision)

    if precision not in QUANTISED:
        model = single if precision == "fp32" else halve(single, precision)
        return model, verified(model, crops)
    if len(crops) < _FEWEST:
        raise UserError(
            f"precision {precision}: got {len(crops)} images to calibrate and verify on, expected "
            f"{_FEWEST} or more of the category; name a larger set by --data"
        )
    ranges, unseen = calibrate(single, crops[::2]), crops[1::2]
    error: DriftError | None = None
    for kept in _choices(single, ranges, unseen, precision):
        model = halve(quantise(single, ranges, precision, kept), precision)
        try:
            report = verified(model, unseen)
        except DriftError as too_far:
            log.info("%d convolutions in fp16: %s", len(kept), too_far)
            error = too_far
        else:
            return model, report | {"calibration_crops": len(crops[::2]), "kept": list(kept)}
    assert error is not None
    raise error


def costliest(
    single: ModelProto,
    ranges: Mapping[str, float],
    crops: NDArray[np.uint8],
    precision: Precision,
) -> list[str]:
    """The weights of all convolutions that can be quantised, by the drift of each one alone."""
    layers = list(quantisable(single))
    expected, _ = run_onnx(single.SerializeToString(), crops)
    drift = {}
    with progress(f"layers in {precision}", len(layers)) as report:
        for done, layer in enumerate(layers, 1):
            others = [other for other in layers if other != layer]
            model = halve(quantise(single, ranges, precision, others), precision)
            found, _ = run_emulated(model.SerializeToString(), crops)
            drift[layer] = float(np.linalg.norm(found - expected, axis=2).mean())
            report(done, len(layers))
    return sorted(layers, key=lambda layer: -drift[layer])


def _choices(
    single: ModelProto,
    ranges: Mapping[str, float],
    crops: NDArray[np.uint8],
    precision: Precision,
) -> Iterator[Collection[str]]:
    """What to leave in fp16: nothing, then ever more of the costliest convolutions."""
    yield ()
    log.warning("%s is over its limit; looking for the convolutions to leave in fp16", precision)
    ranked = costliest(single, ranges, crops[:_RANKING_CROPS], precision)
    yield from (ranked[:count] for count in _KEPT)
