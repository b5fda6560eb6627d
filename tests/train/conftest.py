"""Tiny data, networks and runs: 64-pixel crops and a width of 16 channels."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from lmk.train import hourglass
from lmk.train.checkpoint import save_core
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.datasets.builtin import builtin
from lmk.train.datasets.decoded import decode
from lmk.train.hourglass import HourglassConfig, LandmarkNetwork
from lmk.train.run import Run

SIZE, WIDTH = 64, 16
settings.register_profile("untimed", deadline=None)  # the first example pays for what is loaded
settings.load_profile("untimed")


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


@pytest.fixture
def core():
    return make_core()


@pytest.fixture(scope="session")
def core_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("core") / "core.safetensors"
    save_core(path, make_core(), {})
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
        return AdaptConfig(**{**_common(tmp_path / "shoes.safetensors"), **defaults, **options})

    return make


def _common(output: Path) -> dict[str, object]:
    return {"output": output, "device": "cpu", "dtype": "fp32", "threads": 1}


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """Return a function after whose call a SIGINT reaches the process during that step."""
    log = Run.log

    def at(step: int) -> None:
        def interrupting(self, batch, values):
            log(self, batch, values)
            if self.step == step:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Run, "log", interrupting)

    return at
