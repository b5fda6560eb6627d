"""What ships, and how each file is made -> what its card says of it, and a map of its landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.benchmarks.paper.figures import MAP_IMAGES, cloud
from lmk.runtime.files import atomic_path
from lmk.runtime.model import read_header
from lmk.runtime.sources import VIDEO_SUFFIXES
from lmk.train.config import AdaptConfig, CoreConfig, DistillConfig, EvaluateConfig
from lmk.train.core import find_points
from lmk.train.datasets import CropMode, DecodedSet
from lmk.train.device import pick_device
from lmk.train.judge import evaluate, pck, righted, spread_over, views
from lmk.train.network import LandmarkNetwork, load_core, load_pack
from lmk.train.split import split_indices

TEST_IMAGES = 1000
_LONG = ("_curve", "_by_images", "_images_needed")  # endings of what no card shows
# Of a configuration, what does not change what is learnt, or cannot be given to a pack.
_FREE = {"output", "core", "vgg", "device", "threads", "resume", "preview_every", "report"}
_FREE |= {"keep", "compile"}
_OF_THE_CORE = {"width", "input_size"}


@dataclass(frozen=True)
class Stage:
    """One file of the zoo: a core, a pack of the core that is named, or a student of that pack."""

    data: tuple[str, ...]  # several are joined
    crop: CropMode
    core: str | None = None
    # Besides the held-out images of `data`, if that is one set; and what crops are fitted to.
    judged_on: Mapping[str, CropMode] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # over those of the plan
    teacher: str | None = None
    remark: str | None = None  # of how it was made or what it pays: for its card


@dataclass(frozen=True)
class ZooPlan:
    """All files in the order in which they are made, and the options of all cores and packs."""

    name: str
    stages: Mapping[str, Stage]
    core: Mapping[str, Any]
    adapt: Mapping[str, Any]
    distill: Mapping[str, Any]

    @property
    def input_size(self) -> int:
        """Side of all crops in pixels."""
        return self.core.get("input_size", 128)


_FACES = ("face_ytf68", "face_mtfl80")
_ALL_FACES = ("face_celeba_small", "face_mtfl80", "face_ytf68")
_JUDGED_FACES: Mapping[str, CropMode] = {
    "face_celeba_small": "center",
    "face_mtfl80": "image",
    "face_ytf68": "image",
}
# Tight crops that hardly turn: the turning, growing and moving must come from the pairs.
_TIGHT = {"shift": 0.15, "scale": 0.25}
_STAGES = {
    "core": Stage(("pose_lspet",), "annotation"),
    "face-core": Stage(_FACES, "image"),
    "joint-core": Stage(("pose_lspet", *_FACES), "image"),
    "faces": Stage(_ALL_FACES, "image", "core", _JUDGED_FACES, _TIGHT),
    "cats": Stage(
        ("cat_heads",),
        "image",
        "core",
        options={**_TIGHT, "spacing": 1.5},
        remark="Its landmarks are driven further apart than by default, where they crowd between "
        "the eyes: they cover more of the head, though not its ears, and are a little less steady.",
    ),
    "shoes": Stage(("shoes_zappos",), "image", "core", options=_TIGHT),
    "faces-20": Stage(_ALL_FACES, "image", "core", _JUDGED_FACES, {**_TIGHT, "landmarks": 20}),
    "cats-20": Stage(("cat_heads",), "image", "core", options={**_TIGHT, "landmarks": 20}),
    "mouse": Stage(
        ("videos/mouse_openfield.mp4",), "image", "core", {"mouse_openfield": "annotation"}
    ),
    "faces-fast": Stage(
        _ALL_FACES,
        "image",
        judged_on=_JUDGED_FACES,
        teacher="faces",
    ),
    "cats-fast": Stage(("cat_heads",), "image", teacher="cats"),
    "shoes-fast": Stage(("shoes_zappos",), "image", teacher="shoes"),
}
_DRY_STAGES = {
    "core": Stage(("builtin:puppet",), "annotation"),
    "face-core": Stage(("builtin:puppet", "builtin:butterfly"), "image"),
    "butterflies": Stage(("builtin:butterfly",), "image", "core", {"builtin:puppet": "image"}),
    "puppets": Stage(("builtin:puppet",), "image", "face-core"),
    "butterflies-fast": Stage(("builtin:butterfly",), "image", teacher="butterflies"),
}
PLANS = {
    plan.name: plan
    for plan in (
        ZooPlan(
            "gpu",
            _STAGES,
            core={"width": "full", "epochs": 110, "batch": 64},
            adapt={"steps": 12_000, "batch": 48, "generator_width": 64, "preview_every": 1000},
            distill={"steps": 20_000, "batch": 64},
        ),
        ZooPlan(
            "cpu",
            _STAGES,
            core={"width": "medium", "steps": 4000, "batch": 32},
            adapt={"steps": 1500, "batch": 16, "generator_width": 16},
            distill={"steps": 4000, "batch": 16},
        ),
        ZooPlan(
            "dry",
            _DRY_STAGES,
            core={"width": "small", "input_size": 64, "steps": 3, "batch": 4},
            adapt={"steps": 3, "batch": 4, "generator_width": 8, "report": False},
            distill={"steps": 3, "batch": 4},
        ),
    )
}


def measure(path: Path, stage: Stage, data: Mapping[str, DecodedSet]) -> dict[str, Any]:
    """The entry of `path` in zoo.json: the file, how it was made, how good it is as it ships.

    `data` holds what it was trained on under "", and each of `stage.judged_on` under its name. It
    is measured on images that were held out; a pack also on each of those sets, by regressors
    fitted to their training images.
    """
    header = read_header(path)
    seed = header["config"]["seed"]
    own, (train, held_out) = data[""], split_indices(data[""].splits, seed)
    entry: dict[str, Any] = {
        "kind": header["kind"],
        "data": list(stage.data),
        "core": stage.core,
        "core_sha256": header.get("core_sha256"),
        "teacher": stage.teacher and {"name": stage.teacher, **header["teacher"]},
        "command": command(header, stage),
        "images": header.get("images", len(train)),
        "landmarks": len(header["landmark_names"]),
        "network": header["network"],
        "steps": header["step"],
        "seconds": header["seconds"],
        "bytes": path.stat().st_size,
        "sha256": header["sha256"],
        "remark": stage.remark,
    }
    model = _load(path, stage)
    if header["kind"] == "core":
        entry["accuracy"] = _accuracy(model, own, held_out)
    else:
        config = EvaluateConfig(images=TEST_IMAGES)
        crops = {"": stage.crop, **stage.judged_on}
        reports = [
            evaluate(model, each, config, seed, crop=crops[name])
            for name, each in data.items()
            if name or len(stage.data) == 1  # sets that are joined are annotated differently
        ]
        entry["measures"] = [
            {n: v for n, v in report.items() if n != "options" and not n.endswith(_LONG)}
            for report in reports
        ]
    entry["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return entry


def write_map(path: Path, weights: Path, stage: Stage, data: DecodedSet) -> int:
    """Draw where the landmarks of `weights` land on held-out images, over the mean of their crops.

    Objects that turn are shown as if they did not. No single image can be seen in it. Returns the
    number of images.
    """
    options = read_header(weights)["config"]
    _, held_out = split_indices(data.splits, options["seed"])
    chosen, config = spread_over(held_out, MAP_IMAGES), EvaluateConfig()
    model, turns = _load(weights, stage), options["rotation"] == 180
    seen = righted(model, data, chosen, config) if turns else views(model, data, chosen, config, 0)
    with atomic_path(path) as temporary:
        mean = np.repeat(seen.images[-1].mean(axis=(0, 3))[..., None], 3, axis=2).astype(np.uint8)
        Image.fromarray(cloud(mean, seen.found[-1])).save(temporary)
    return len(chosen)


def command(header: Mapping[str, Any], stage: Stage) -> str:
    """The line that makes the file of `header` again, every option that is not a default named."""
    is_core = header["kind"] == "core"
    words = ["lmk", "train-core" if is_core else "adapt"]
    config: type[CoreConfig | AdaptConfig | DistillConfig] = CoreConfig if is_core else AdaptConfig
    free = _FREE if is_core else _FREE | _OF_THE_CORE
    if stage.teacher:
        words, config = ["lmk", "distill", stage.teacher], DistillConfig
        free = _FREE | {"input_size"}
    words += [f"--data {data}" for data in stage.data]
    if stage.core and len(stage.data) > 1:
        words.append("--join")
    if stage.core:
        words.append(f"--core {stage.core}.safetensors")
    if stage.crop != ("annotation" if is_core else "image"):
        words.append(f"--crop {stage.crop}")
    for item in fields(config):
        value = header["config"].get(item.name, item.metadata.get("before"))
        flag = item.name.replace("_", "-")
        if item.name not in free and value not in (None, item.default):
            given = f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else None
            words.append(given or f"--{flag} {value}")
    films = [data for data in stage.data if Path(data).suffix.lower() in VIDEO_SUFFIXES]
    return " && ".join([*(f"lmk find {film}" for film in films), " ".join(words)])


def _accuracy(
    model: LandmarkNetwork, data: DecodedSet, held_out: NDArray[np.intp]
) -> dict[str, Any]:
    """PCK@0.2 of a core on images that it was not trained on."""
    points = find_points(model.to(pick_device()), data, held_out)
    truth = data.crop_points(held_out, model.config.input_size)
    normaliser = data.scheme.normaliser
    overall, _ = pck(points, truth, normaliser.lengths(truth, data.lengths[held_out]))
    return {"pck": overall, "normaliser": normaliser.label, "test_images": len(held_out)}


def _load(path: Path, stage: Stage) -> LandmarkNetwork:
    """The network of a core, of a pack with its core beside it, or of a student."""
    if stage.core is None and stage.teacher is None:
        return load_core(path)[0]
    core = path.with_name(f"{stage.core}.safetensors") if stage.core else None
    return load_pack(path, core)[0]
