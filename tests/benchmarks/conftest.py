"""A whole reproduction of the tables, tiny: 40 drawings, 64-pixel crops, a width of 16 channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmk.benchmarks.paper.plan import ReproduceOptions
from lmk.benchmarks.paper.reproduction import reproduce
from lmk.export.graph.template import template_of, write_template
from lmk.export.graph.verify import randomised
from lmk.runtime.model.composition import compose_file
from lmk.runtime.model.contract import default_names
from lmk.runtime.model.probe import probe_crops
from lmk.train.datasets import find
from lmk.train.network import hourglass
from lmk.train.network.category import new_category, save_pack
from lmk.train.network.checkpoint import load_core, save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork

PUPPET, BUTTERFLY = "builtin:puppet", "builtin:butterfly"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Decoded drawings."""
    return tmp_path_factory.mktemp("cache")


def make_small(patched, cache):
    patched.setitem(hourglass.WIDTHS, "small", 16)
    patched.setattr(find, "BUILTIN_COUNT", 40)
    patched.setenv("LMK_CACHE", str(cache))


@pytest.fixture
def tiny(monkeypatch, cache):
    """Networks of 16 channels, 40 drawings of each category."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are taken in one order
    make_small(monkeypatch, cache)
    yield
    torch.set_num_threads(before)


def make_options(folder: Path, **more) -> ReproduceOptions:
    """Three steps of four images on drawings; the core has two epochs of one step."""
    values = {"core_data": PUPPET, "data": (BUTTERFLY,), "images": (10,), "steps": 3, "batch": 4}
    values |= {"width": "small", "input_size": 64, "core_epochs": 2, "landmarks": 5}
    values |= {"device": "cpu", "threads": 1}
    return ReproduceOptions(**{**values, "folder": folder, **more})


@pytest.fixture(scope="session")
def options():
    """Return a function: folder and what differs -> options of a tiny reproduction."""
    return make_options


@pytest.fixture(scope="session")
def made(tmp_path_factory, cache):
    """The folder of a reproduction of tables 1 to 5; nobody may write to it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        make_small(patched, cache)
        outcome = reproduce("all", make_options(folder))
    assert (outcome.failed, outcome.left) == ({}, [])
    return folder


@pytest.fixture
def bench_says(lmk, capsys):
    """Return a function: arguments -> exit code, standard output, the one line of a failure."""

    def run(*arguments):
        code, printed = lmk("bench", *arguments), capsys.readouterr()
        failures = [line for line in printed.err.splitlines() if line.startswith("lmk: ")]
        assert code != 2 or len(failures) == 1
        return code, printed.out, "".join(failures)

    return run


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    """A pack with random weights beside its core and its template: 16 channels, 64-pixel crops."""
    folder = tmp_path_factory.mktemp("detector")
    core_path, pack_path = folder / "core.safetensors", folder / "teapots.safetensors"
    torch.manual_seed(0)
    core = LandmarkNetwork(HourglassConfig(14, width=16, input_size=64)).eval()
    save_core(core_path, core, {})
    model = new_category("projection", core, 5)
    model.load_state_dict(randomised(model, probe_crops(64, 4)).state_dict())
    header = {"category": "teapots", "method": "projection", "scope": "all"}
    header |= {"train_plain_convs": False, "core_sha256": load_core(core_path)[1]["sha256"]}
    header |= {"crop_scale": 1.25, "landmark_names": default_names(5)}
    save_pack(pack_path, model, header)
    write_template(template_of(model.config), folder)
    return pack_path


@pytest.fixture(scope="session")
def exported_detector(detector, tmp_path_factory):
    """The ONNX file of `detector`, with its pack out of sight."""
    path = tmp_path_factory.mktemp("exported") / "teapots.onnx"
    compose_file(detector, path)
    return path
