"""Graph that finds landmarks + how points follow from them -> graph that finds the points.

A pack whose points were named holds two tensors more: a named point is the sum of the landmarks
times its row of `naming.weight` (M,K), which sums to 1, plus its row of `naming.offset` (M,2) in
crop pixels. Its score is the mean of the landmarks' scores, each by the absolute value of its
weight: the more a landmark moves the point, the more its score counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime import wire
from lmk.runtime.contract import LANDMARKS, SCORES
from lmk.runtime.errors import UserError
from lmk.runtime.weights import Arrays

WEIGHT, OFFSET = TENSORS = ("naming.weight", "naming.offset")
_SHARES = "naming.shares"  # (K,M) of each landmark in a point's score
_BATCH = "batch"  # the name of the dynamic axis in every graph of ours


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
