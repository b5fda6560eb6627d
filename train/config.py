"""Every choice of a run, its default and its help: the command line is made from these.

Importing this needs no PyTorch. A default of None is filled in by `for_device`; the types are those
of a config that has been through it.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmk.runtime.errors import UserError

Method = Literal["projection", "finetune", "scratch", "finetune-last", "projection+finetune"]
Scope = Literal["all", "blocks"]
Perceptual = Literal["core", "vgg19", "vgg16", "none"]
Width = Literal["full", "medium", "small", "tiny"]


def option(default: Any, help: str, before: Any = None) -> Any:
    """A dataclass field with a default and the help text of its command-line option.

    before: what files in which it is missing were made with.
    """
    return field(default=default, metadata={"help": help, "before": before})


AUTO = Path("auto")  # in the place of a core: the one that suits the data
NAMED = Path("runs/category.safetensors")  # where the command line has the name of the data

_POSITIVE = {"steps", "minutes", "lr", "threads", "epochs", "preview_every", "clip"}
_POSITIVE |= {"images", "sigma", "projection_rate", "target_sigma", "generator_width"}
_NOT_NEGATIVE = {"rotation", "scale", "shift", "gain", "equivariance", "separation", "seed"}
_NOT_NEGATIVE |= {"ramp", "identity", "average", "bend", "jitter", "maps", "off_object"}
_NOT_NEGATIVE |= {"apart_s", "turn_ramp"}
_BELOW_1 = {"average", "jitter", "bend"}
_AT_MOST_1 = {"ramp", "turn_ramp"}
SPACINGS = 0.1, 16.0  # cells: of nearer and wider ones nothing could be learnt


# A batch-norm cannot be trained on one image, nor collapse be seen on one landmark.
_AT_LEAST_2 = {"batch", "landmarks"}


def check_device(name: str) -> None:
    """Raise UserError for a word that is no device; whether it is there is asked later."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device: got '{name}', expected auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class RunConfig:
    """What supervised and unsupervised runs have in common."""

    output: Path = option(Path("runs/run.safetensors"), "the file to write, beside its folder")
    width: Width = option(None, "channels of a new network: 256, 128, 64 or 48")
    input_size: int = option(128, "side of a new network's input in pixels, a multiple of 64")
    steps: int | None = option(None, "optimiser steps")
    minutes: float | None = option(None, "end, with the schedule fitted, after this long")
    batch: int = option(None, "images a step")
    lr: float = option(1e-3, "peak learning rate")
    shift: float = option(0.08, "random shift: ± this share of the crop")
    seed: int = option(0, "seed of everything random")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")
    dtype: Literal["auto", "bf16", "fp32"] = option("auto", "arithmetic of the convolutions")
    compile: Literal["auto", "on", "graphs", "off"] = option(
        "auto",
        "compile the step, graphs: as CUDA graphs; auto: with CUDA, in one process and for a "
        "budget that makes it worth while",
    )
    threads: int | None = option(None, "CPU threads; default: the cores that are free")
    resume: bool = option(False, "go on from the last checkpoint of this output")

    def recorded(self) -> dict[str, Any]:
        """What is kept of it: all that the result is made of, not whether the run was resumed."""
        return {name: value for name, value in asdict(self).items() if name != "resume"}

    def __post_init__(self) -> None:
        """Raise UserError for a number that no run can have."""
        for name in [f.name for f in fields(self)]:
            value, flag = getattr(self, name), "--" + name.replace("_", "-")
            if value == math.inf:
                raise UserError(f"{flag}: got {value}, expected a finite number; lower it")
            if name in _POSITIVE and value is not None and not value > 0:
                raise UserError(f"{flag}: got {value}, expected more than 0; raise it")
            if name in _AT_LEAST_2 and value is not None and not value >= 2:
                raise UserError(f"{flag}: got {value}, expected 2 or more; raise it")
            if name in _NOT_NEGATIVE and value is not None and not value >= 0:
                raise UserError(f"{flag}: got {value}, expected 0 or more; raise it")
            if name in _BELOW_1 and not value < 1:
                raise UserError(f"{flag}: got {value}, expected less than 1; lower it")
            if name in _AT_MOST_1 and not value <= 1:
                raise UserError(f"{flag}: got {value}, expected at most 1; lower it")
        rotation = getattr(self, "rotation", None)
        if rotation is not None and rotation > 180:
            raise UserError(f"--rotation: got {rotation}, expected at most 180 degrees; lower it")
        spacing = getattr(self, "spacing", None)
        if spacing is not None and not SPACINGS[0] <= spacing <= SPACINGS[1]:
            least, most = SPACINGS
            raise UserError(
                f"--spacing: got {spacing}, expected {least} to {most} cells; the default is 1"
            )
        if self.output.suffix != ".safetensors":  # its folder is the name without it
            raise UserError(f"--output: got {self.output}, expected a name ending in .safetensors")
        if self.input_size < 64 or self.input_size % 64:
            raise UserError(
                f"--input-size: got {self.input_size}, expected a multiple of 64; take 64 or 128"
            )
        check_device(self.device)


@dataclass(frozen=True)
class CoreConfig(RunConfig):
    """Supervised training of a core."""

    output: Path = option(Path("runs/core.safetensors"), "the core to write")
    epochs: int | None = option(None, "passes over the data, unless --steps (paper: 110)")
    loss: Literal["softmax", "mse"] = option(
        "softmax",
        "cross-entropy over each map's cells, or squared error of the maps (paper; learns slower)",
    )
    target_sigma: float = option(1.0, "standard deviation of the target Gaussians in cells")
    rotation: float = option(30.0, "random rotation: ± degrees")
    scale: float = option(0.25, "random scale: up to this much larger or smaller")
    gain: float = option(0.2, "random gain of each colour channel: 1 ± this")
    keep: tuple[int, ...] = option((), "epoch after which NAME-epochN.safetensors is written too")


@dataclass(frozen=True)
class DistillConfig(RunConfig):
    """A student of a pack, from unlabelled images."""

    skips: bool = option(False, "blocks on the skips of its hourglass, as its teacher has")
    output: Path = option(NAMED, "the student to write  [default: runs/PACK-fast.safetensors]")
    lr: float = option(2e-3, "peak learning rate")
    maps: float = option(0.2, "weight of the heat-maps' divergence beside the points' distance")
    rotation: float = option(35.0, "random rotation: ± degrees")
    scale: float = option(0.25, "random scale: up to this much larger or smaller")
    shift: float = option(0.1, "random shift: ± this share of the crop")
    gain: float = option(0.3, "random gain of the colours that the student sees: 1 ± this")


@dataclass(frozen=True)
class AdaptConfig(RunConfig):
    """Unsupervised adaptation to a category."""

    output: Path = option(NAMED, "the pack to write  [default: runs/DATA.safetensors]")
    core: Path | None = option(
        None,
        "the core to adapt (scratch needs none); auto: of those in runs/ and those that ship the "
        "one that suits the images, tried on each  [default: the newest in runs/, else core, which "
        "ships]",
    )
    landmarks: int = option(10, "number K of landmarks to discover")
    method: Method = option(
        "projection",
        "what is learnt: W (the paper); everything, from the core or anew; only what follows the "
        "hourglass; W for half of the budget, then everything",
    )
    images: int | None = option(None, "learn from a random subset of this many images")
    scope: Scope = option("all", "where W is: all convolutions (paper), or the blocks' 3x3 ones")
    train_plain_convs: bool = option(False, "with --scope blocks: train the others (released code)")
    perceptual: Perceptual = option("core", "network whose features compare images (paper: vgg19)")
    vgg: Path | None = option(None, "safetensors with VGG's convolutions, else torchvision's")
    vgg_normalise: bool = option(True, "give VGG images normalised as it was trained on")
    norm: Literal["l1", "mse"] = option("l1", "of the perceptual distance")
    relative: bool = option(True, "divide each perceptual layer by the target's magnitude")
    equivariance: float = option(
        None, "weight: landmarks move as the image does (paper: 0); with --rotation 180, 3"
    )
    separation: float = option(1.0, "weight: landmarks keep apart (paper: 0)")
    spacing: float = option(
        None,
        "how far apart: standard deviation in cells of what drives them; where the object's size "
        "is known at least 0.2 of it over the root of K",
    )
    ramp: float = option(0.0, "share of the run in which these two weights grow from 0")
    off_object: float = option(
        0.3,
        "weight: landmarks stay on the object, where it was seen to move or stands before a plain "
        "background (paper: 0)",
    )
    identity: float = option(0.0, "weight: W stays near the identity")
    average: float = option(0.0, "decay of a moving average of the weights, which is then kept")
    generator_width: int = option(None, "a quarter of the generator's features (paper: 64)")
    sigma: float = option(0.5, "standard deviation of the landmark maps in cells")
    rotation: float = option(
        None,
        "random rotation of both images of a pair: ± degrees; in films whose object turns, as "
        "`lmk find` has it, 180",
    )
    scale: float = option(0.1, "random scale of both: up to this much larger or smaller")
    bend: float = option(
        0.0, "random thin-plate spline between the images of a pair: ± this share of the crop"
    )
    turn_ramp: float = option(
        0.8,
        "with --rotation 180, of films: share of the run in which turns grow from little about the "
        "object's heading; 0: full turns at once, in which head and tail may not be told apart",
    )
    apart_s: float = option(
        0.0, "of films: paint from a frame of the same object up to so many seconds away"
    )
    jitter: float = option(0.0, "random gain of the colours that the detector sees: 1 ± this")
    border: Literal["border", "reflection"] = option("border", "what surrounds images: replicate …")
    whiten: bool = option(
        # 250 steps on cats (results/whitening-cpu): consistency over spread 3.2 for 3.8 %.
        True,
        "step W so that W·theta moves alike in all directions (paper: no)",
        before=False,
    )
    projection_rate: float = option(
        2.0, "rate of W·theta over weights that are learnt, or with --no-whiten of W (paper: 1)"
    )
    beta1: float = option(0.0, "of Adam")
    weight_decay: float = option(5e-4, "L2 penalty")
    clip: float = option(1.0, "largest gradient norm of each of the two networks")
    schedule: Literal["cosine", "step"] = option("cosine", "of the learning rate (paper: step)")
    preview_every: int = option(250, "steps between two preview sheets")
    report: bool = option(True, "at the end, write a page that judges every landmark")


_WITHOUT_OURS = {"relative": False, "equivariance": 0.0, "separation": 0.0, "schedule": "step"}
_WITHOUT_OURS |= {"whiten": False, "projection_rate": 1.0, "off_object": 0.0}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {**_WITHOUT_OURS, "perceptual": "vgg19", "generator_width": 64},
    # The authors' code where it differs from their paper (method-facts, section 0).
    "released": {
        **_WITHOUT_OURS,
        "perceptual": "vgg16",
        "vgg_normalise": False,
        "norm": "mse",
        "scope": "blocks",
        "train_plain_convs": True,
        "generator_width": 32,
        "rotation": 30.0,
        "scale": 0.0,
        "shift": 0.0,
    },
}

# What None stands for. Without a GPU twenty minutes must do; with one, the paper's budget.
BY_DEVICE: dict[type, dict[str, dict[str, Any]]] = {
    CoreConfig: {
        "cpu": {"width": "medium", "batch": 32, "minutes": 20.0},
        "cuda": {"width": "full", "batch": 32, "epochs": 110},
    },
    DistillConfig: {
        "cpu": {"width": "small", "batch": 16, "minutes": 12.0},
        "cuda": {"width": "small", "batch": 64, "steps": 20_000},
    },
    AdaptConfig: {
        device: {"rotation": 20.0, "equivariance": 0.3, "spacing": 1.0, **own}
        for device, own in {
            "cpu": {"width": "medium", "batch": 16, "generator_width": 16, "minutes": 20.0},
            "cuda": {"width": "full", "batch": 48, "generator_width": 64, "steps": 200_000},
        }.items()
    },
}
UNBOUNDED = 10**9  # steps of a run whose budget is minutes alone

Config = TypeVar("Config", bound=RunConfig)


def for_device(config: Config, device: str) -> Config:
    """Fill in what was left to the device type ("cpu" or "cuda").

    A budget that was given in any unit is never overridden.
    """
    defaults = dict(BY_DEVICE[type(config)][device])
    if config.steps or config.minutes or getattr(config, "epochs", None):
        for unit in ("steps", "minutes", "epochs"):
            defaults.pop(unit, None)
    names = {f.name for f in fields(config)} & defaults.keys()
    return replace(config, **{n: defaults[n] for n in names if getattr(config, n) is None})


@dataclass(frozen=True)
class EvaluateConfig:
    """How the measures are taken."""

    rotation: float = option(15.0, "of the consistency transform: ± degrees, uniform")
    scale: float = option(0.1, "of the consistency transform: up to this much larger or smaller")
    shift: float = option(0.05, "of the consistency transform: ± this share of the crop")
    ridge: float = option(1e-4, "penalty of the regressors times the largest entry of X'X")
    bias: bool = option(True, "fit the regressors' constant term too (IMM's protocol: none)")
    repeats: int = option(10, "random choices of each number of training images")
    batch_norm: Literal["eval", "batch"] = option(
        "eval", "statistics: those learnt, or of the batch at hand (released code)"
    )
    crop_margin: float | None = option(
        None, "with --crop annotation: crop side / box of the points  [default: 1.5]"
    )
    images: int | None = option(None, "at most this many test images, spread over the set")
    regressor_images: int | None = option(
        None, "at most this many training images, spread over the set"
    )
    seed: int = option(0, "of the transforms and of the choices of training images")
    batch: int = option(32, "images at a time")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")
    threads: int | None = option(None, "CPU threads; default: all cores")

    def __post_init__(self) -> None:
        """Raise UserError for a number that no measure can have."""
        least = {"rotation": 0, "scale": 0, "shift": 0, "ridge": 0, "repeats": 1, "seed": 0}
        least |= {"crop_margin": 1, "images": 1, "regressor_images": 1, "batch": 1, "threads": 1}
        for name, low in least.items():
            value, flag = getattr(self, name), "--" + name.replace("_", "-")
            if value is not None and not value >= low:
                raise UserError(f"{flag}: got {value}, expected {low} or more; raise it")
        check_device(self.device)


# What the authors' code does otherwise (method-facts, section 8), as far as options have it: the
# rotation N(0, 15°), unbounded, becomes the uniform one of that spread, without its canvas that
# grows with the angle; the margin is that of its training, 70 %.
EVALUATE_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "released": {
        "batch_norm": "batch",
        "batch": 30,
        "rotation": 26.0,
        "scale": 0.0,
        "shift": 0.0,
        "crop_margin": 2.4,
    },
}
