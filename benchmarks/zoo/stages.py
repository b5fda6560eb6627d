"""What ships: for each file, what it is trained on, from which core, and what it is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmk.train.datasets import CropMode


@dataclass(frozen=True)
class Stage:
    """One file of the zoo: a core, or a pack of the core that is named."""

    data: tuple[str, ...]  # several are joined
    crop: CropMode
    core: str | None = None
    judged_on: tuple[str, ...] = ()  # besides the held-out images of `data`
    options: Mapping[str, Any] = field(default_factory=dict)  # over those of the plan


@dataclass(frozen=True)
class ZooPlan:
    """All files in the order in which they are made, and the options of all cores and packs."""

    name: str
    stages: Mapping[str, Stage]
    core: Mapping[str, Any]
    adapt: Mapping[str, Any]

    @property
    def input_size(self) -> int:
        """Side of all crops in pixels."""
        return self.core.get("input_size", 128)


_FACES = ("face_ytf68", "face_mtfl80")
# Tight crops that hardly turn: the turning, growing and moving must come from the pairs.
_TIGHT = {"shift": 0.15, "scale": 0.25}
_STAGES = {
    "core": Stage(("pose_lspet",), "annotation"),
    "face-core": Stage(_FACES, "image"),
    "faces": Stage(("face_celeba_small",), "center", "core", ("face_mtfl80",), _TIGHT),
    "cats": Stage(("cat_heads",), "image", "core", options=_TIGHT),
    "shoes": Stage(("shoes_zappos",), "image", "core", options=_TIGHT),
    "bodies": Stage(("pose_lspet",), "image", "face-core"),
}
_DRY_STAGES = {
    "core": Stage(("builtin:puppet",), "annotation"),
    "face-core": Stage(("builtin:puppet", "builtin:butterfly"), "image"),
    "butterflies": Stage(("builtin:butterfly",), "image", "core", ("builtin:puppet",)),
    "bodies": Stage(("builtin:puppet",), "image", "face-core"),
}
PLANS = {
    plan.name: plan
    for plan in (
        ZooPlan(
            "gpu",
            _STAGES,
            core={"width": "full", "epochs": 110, "batch": 64},
            adapt={"steps": 12_000, "batch": 48, "generator_width": 64, "preview_every": 1000},
        ),
        ZooPlan(
            "cpu",
            _STAGES,
            core={"width": "medium", "steps": 4000, "batch": 32},
            adapt={"steps": 1500, "batch": 16, "generator_width": 16},
        ),
        ZooPlan(
            "dry",
            _DRY_STAGES,
            core={"width": "small", "input_size": 64, "steps": 3, "batch": 4},
            adapt={"steps": 3, "batch": 4, "generator_width": 8, "report": False},
        ),
    )
}
