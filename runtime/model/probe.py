"""Probe crops -> what a detector finds in them: kept in a pack, checked wherever it is composed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import INPUT, LANDMARKS, SCORES, Precision, Reading

COUNT = 4  # crops
_SEED = 0
_OCTAVES = 5
_SHAKE = 4  # grey levels
# Statistic over all landmarks and crops -> pixels. In fp32 rounding alone stays 10 to 100 times
# below it. A landmark is 2 to 4 px off the annotated place in the best of cases: the others cost
# at most a tenth of that on average.
LIMITS_PX: dict[Precision, dict[str, float]] = {
    "fp32": {"max": 0.01},
    "fp16": {"mean": 0.1, "p99": 0.5},
    "bf16": {"mean": 0.1, "p99": 0.5},
    "int8": {"mean": 0.3, "p99": 1.5},
    "fp8": {"mean": 0.3, "p99": 1.5},
}
_STATISTICS: dict[str, Callable[..., Any]] = {
    "max": np.max,
    "mean": np.mean,
    "p99": partial(np.percentile, q=99),
}


def probe_crops(size: int, count: int = COUNT, seed: int = _SEED) -> NDArray[np.uint8]:
    """Textured crops uint8 (count,size,size,3), the same on every machine, now and later.

    Noise at five scales, each half as strong as the coarser one before: white noise would be
    averaged away by a network. Integers only, from the raw numbers of PCG64, which NumPy promises
    never to change; neither promise is made of its distributions or of sums of floats.
    """
    source = np.random.PCG64(seed)
    image = np.zeros((count, size, size, 3), np.int64)
    for octave in range(_OCTAVES):
        cells = 3 * 2**octave
        shape = (count, cells + 1, cells + 1, 3)
        noise = (source.random_raw(int(np.prod(shape))) >> np.uint64(56)).astype(np.int64)
        image += _enlarged(noise.reshape(shape), size) << (_OCTAVES - 1 - octave)
    mean = image // (size**2 * (2**_OCTAVES - 1))  # 0 to 255, mostly near the middle
    return np.clip(128 + 2 * (mean - 128), 0, 255).astype(np.uint8)


def shaken(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same crops with each value up to 4 grey levels higher or lower, as by a sensor's noise.

    On pictures of the category that moves the landmarks of what ships by 0.08 to 0.2 px on
    average, what a drift of fewer bits may come to; in `probe_crops`, where there is nothing to be
    found and every rounding tells, by 0.2 to 1 px (benchmarks/NOTES.md). Integers only, see there.
    """
    noise = np.random.PCG64(_SEED + 1).random_raw(crops.size).reshape(crops.shape)
    steps = (noise >> np.uint64(32)).astype(np.int64) % (2 * _SHAKE + 1) - _SHAKE
    return np.clip(crops + steps, 0, 255).astype(np.uint8)


def record(landmarks: NDArray[np.float32], scores: NDArray[np.float32]) -> dict[str, Any]:
    """What stands in a pack's header: landmarks (N,K,2) and scores (N,K) of `probe_crops`."""
    return {
        "crops": len(landmarks),
        "seed": _SEED,
        "landmarks": landmarks.astype(np.float64).round(4).tolist(),
        "scores": scores.astype(np.float64).round(4).tolist(),
    }


def check(
    model: bytes, probe: Mapping[str, Any], size: int, names: Sequence[str], source: str
) -> dict[str, Any]:
    """Run the crops of `probe` (see `record`), of `size` pixels, through an fp32 ONNX model.

    Returns and raises what `compare` does, about the pack `source`.
    """
    found = run_onnx(model, probe_crops(size, probe["crops"], probe["seed"]))
    cure = "try another version of onnxruntime, or run `lmk export`, which says where it comes from"
    return compare(found, probe, names, "fp32", source, cure)


def compare(
    found: Reading,
    probe: Mapping[str, Any],
    names: Sequence[str],
    precision: Precision,
    source: str,
    cure: str,
) -> dict[str, Any]:
    """How far what was `found` in the crops of `probe` is from what the probe says.

    Returns `crops`, `limits_px` of the precision, `max_px`, `mean_px`, `landmarks_max_px` (K
    values) and `scores_max`, ready for JSON. Raises UserError, about `source` and with `cure`, for
    a probe of another form, and naming the worst landmark when a statistic is over its limit.
    """
    expected = np.array(probe["landmarks"])
    if expected.shape != found[0].shape:
        raise UserError(
            f"{source}: got a probe of {expected.shape}, expected {found[0].shape}; "
            "make the pack again"
        )
    distance = np.linalg.norm(found[0] - expected, axis=2)  # (N,K)
    for statistic, limit in LIMITS_PX[precision].items():
        if _STATISTICS[statistic](distance) <= limit:  # this way round NaN is beyond it
            continue
        each = _STATISTICS[statistic](distance, axis=0)
        worst = int(np.where(np.isnan(each), np.inf, each).argmax())
        raise UserError(
            f"{source}: landmark '{names[worst]}': got a drift of {each[worst]:.4g} px from the "
            f"probe ({statistic}), expected at most {limit} px; {cure}"
        )
    return {
        "reference": "probe",
        "crops": len(distance),
        "limits_px": LIMITS_PX[precision],
        "max_px": float(distance.max()),
        "mean_px": float(distance.mean()),
        "landmarks_max_px": distance.max(axis=0).tolist(),
        "scores_max": float(np.abs(found[1] - np.array(probe["scores"])).max()),
    }


def run_onnx(model: bytes, crops: NDArray[np.uint8]) -> Reading:
    """Landmarks and scores of ONNX Runtime on the CPU."""
    import onnxruntime  # 0.2 s

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    landmarks, scores = session.run([LANDMARKS, SCORES], {INPUT: crops})
    return landmarks, scores


def _enlarged(noise: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Bilinear from (N,cells+1,cells+1,3) to (N,size,size,3), times size²."""
    at, part = np.divmod(np.arange(size) * (noise.shape[1] - 1), size)
    rows = noise[:, at] * (size - part)[:, None, None] + noise[:, at + 1] * part[:, None, None]
    return rows[:, :, at] * (size - part)[:, None] + rows[:, :, at + 1] * part[:, None]
