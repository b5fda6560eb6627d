"""Tiny data, networks and runs: 64-pixel crops and a width of 16 channels."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.datasets.decoded import DecodedSet, decode
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.datasets.sample import scheme_of
from lmk.train.judge import acceptance
from lmk.train.loop.run import TrainingRun
from lmk.train.network import hourglass
from lmk.train.network.bottleneck import BETA
from lmk.train.network.checkpoint import load, read_header, save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork

SIZE, WIDTH = 64, 16


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums are taken in one order, and the machine may be shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def tiny_widths(monkeypatch):
    """New networks of the width "small" have 16 channels."""
    monkeypatch.setitem(hourglass.WIDTHS, "small", WIDTH)


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    """What a pack accepts is measured, at the end of each run, on 20 images instead of 32."""
    monkeypatch.setattr(acceptance, "_IMAGES", 20)


@pytest.fixture(scope="session")
def puppets(tmp_path_factory):
    """40 labelled puppets, the last 4 held out."""
    cache = tmp_path_factory.mktemp("puppets")
    return decode(builtin("puppet", 40), SIZE, "annotation", cache)


@pytest.fixture(scope="session")
def butterflies(tmp_path_factory):
    """40 butterflies in whole images, the last 4 held out."""
    cache = tmp_path_factory.mktemp("butterflies")
    return decode(builtin("butterfly", 40), SIZE, "image", cache)


def make_core(seed: int = 0, num_landmarks: int = 14) -> LandmarkNetwork:
    """A random core whose batch-norms have seen something, so that nothing is at its default."""
    torch.manual_seed(seed)
    model = LandmarkNetwork(HourglassConfig(num_landmarks, WIDTH, SIZE)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
        for _ in range(20):
            model(torch.rand(4, 3, SIZE, SIZE))
    return model.eval()


@pytest.fixture(scope="session")
def shared_core():
    """Seconds to make; `core` is a copy of it."""
    return make_core()


@pytest.fixture
def core(shared_core):
    torch.manual_seed(0)
    return copy.deepcopy(shared_core)


@pytest.fixture(scope="session")
def core_path(shared_core, tmp_path_factory):
    path = tmp_path_factory.mktemp("core") / "core.safetensors"
    save_core(path, shared_core, {})
    return path


@pytest.fixture
def core_config(tmp_path):
    """Return a function that makes the configuration of a tiny supervised run."""

    def make(**options) -> CoreConfig:
        defaults = {"width": "small", "input_size": SIZE, "batch": 4, "steps": 8}
        return CoreConfig(**{**_common(tmp_path / "core.safetensors"), **defaults, **options})

    return make


@pytest.fixture
def adapt_config(tmp_path, core_path):
    """Return a function that makes the configuration of a tiny adaptation."""

    def make(**options) -> AdaptConfig:
        defaults = {"core": core_path, "landmarks": 5, "batch": 4, "steps": 6, "generator_width": 8}
        defaults |= {"report": False, "rotation": 20.0, "equivariance": 0.3, "spacing": 1.0}
        return AdaptConfig(**{**_common(tmp_path / "shoes.safetensors"), **defaults, **options})

    return make


def _common(output: Path) -> dict[str, object]:
    return {"output": output, "device": "cpu", "dtype": "fp32", "threads": 1}


@pytest.fixture
def logged(monkeypatch):
    """The losses of each step, as a run is told them; it looks at none itself."""
    seen = []
    monkeypatch.setattr(TrainingRun, "log", lambda run, batch, values: seen.append(values))
    return seen


@pytest.fixture(scope="session")
def same_weights():
    """Return a function that fails unless two files hold the same weights, bit by bit."""

    def check(first, second):
        one, other = (load(path, read_header(path)["kind"])[0] for path in (first, second))
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(other[name], value), name

    return check


class Fake(nn.Module):
    """A detector of three landmarks whose answers are known, for crops of 64 pixels."""

    def __init__(self):
        super().__init__()
        self.config = HourglassConfig(3, WIDTH, SIZE)
        self.naming = None
        self.device_of = nn.Parameter(torch.zeros(1))


class Perfect(Fake):
    """Finds the middle of the red, the green and the blue spot."""

    def forward(self, images):
        pooled = nn.functional.avg_pool2d(images, 4)
        return torch.log(pooled + 1e-12) / BETA


class Constant(Fake):
    """Sees nothing; `cells` (K,2) is all it ever says."""

    def __init__(self, *cells):
        super().__init__()
        self.maps = torch.full((3, SIZE // 4, SIZE // 4), -10.0)
        for one, (x, y) in zip(self.maps, cells, strict=True):
            one[y, x] = 10.0

    def forward(self, images):
        return self.maps.expand(len(images), *self.maps.shape)


@pytest.fixture(scope="session")
def detectors():
    """Perfect(), and Constant(cell, cell, cell)."""
    return SimpleNamespace(Perfect=Perfect, Constant=Constant)


@pytest.fixture(scope="session")
def spots():
    """Images of a red, a green and a blue spot, whose middles are the annotated points."""
    count, source = 30, 80
    rng = np.random.default_rng(0)
    nominal = np.array([[30, 32], [50, 32], [40, 48]], np.float32)
    points = (nominal + rng.uniform(-5, 5, (count, 3, 2))).astype(np.float32)
    steps = np.arange(source)
    across = np.exp(-((steps - points[..., :1]) ** 2) / 8)  # (N,3,S)
    down = np.exp(-((steps - points[..., 1:]) ** 2) / 8)
    images = np.einsum("nky,nkx->nyxk", down, across)
    return DecodedSet(
        name="spots",
        images=(images * 255).round().astype(np.uint8),
        points=points,
        names=tuple(f"{i}.png" for i in range(count)),
        splits=("train",) * 20 + ("test",) * 10,
        scheme=scheme_of(("l_eye", "r_eye", "nose")),
        lengths=np.full(count, np.nan, np.float32),
        skipped=(),
        crop_scale=1.0,
    )
