"""Small networks with random weights, their files, and one trace that all tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from lmk.export.graph.half import halve
from lmk.export.graph.pack import export_pack
from lmk.export.graph.quantise import calibrate, quantise
from lmk.export.graph.template import fill, template_of, with_landmarks
from lmk.export.graph.verify import probe_crops, randomised
from lmk.runtime.model.contract import default_names
from lmk.train.augment import to_pixels
from lmk.train.network.bottleneck import soft_argmax
from lmk.train.network.category import load_pack, new_category, save_pack
from lmk.train.network.checkpoint import load_core, save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork
from lmk.train.network.projection import project

SIZE, LANDMARKS = 64, 5


@pytest.fixture(scope="session")
def crops():
    """Ten crops: one full batch of the verification and a smaller one."""
    return probe_crops(SIZE, 10, seed=1)


@pytest.fixture(scope="session")
def core():
    torch.manual_seed(0)
    return LandmarkNetwork(HourglassConfig(14, width=16, input_size=SIZE)).eval()


@pytest.fixture(scope="session")
def adapted(core, crops):
    """A projected network with random W, batch-norms and head, in eval mode."""
    return randomised(project(core, LANDMARKS), crops, seed=2)


@pytest.fixture(scope="session")
def template():
    """The template of this size."""
    return template_of(HourglassConfig(LANDMARKS, width=16, input_size=SIZE))


@pytest.fixture(scope="session")
def onnx_model(template, adapted):
    """The graph of `adapted`: that of a trace of its own, as test_trace.py holds."""
    return onnx.load_from_string(fill(template, adapted, {"method": "projection", "scope": "all"}))


@pytest.fixture(scope="session")
def typed_models(onnx_model, crops):
    """The shared graph in each precision."""
    ranges = calibrate(onnx_model, crops[:2])
    models = {"fp32": onnx_model}
    models |= {name: halve(onnx_model, name) for name in ("fp16", "bf16")}
    for name in ("int8", "fp8"):
        models[name] = halve(quantise(onnx_model, ranges, name, ()), name)
    return models


@pytest.fixture(scope="session")
def core_path(core, tmp_path_factory):
    path = tmp_path_factory.mktemp("core") / "core.safetensors"
    save_core(path, core, {})
    return path


@pytest.fixture(scope="session")
def make_pack(core_path, crops):
    """Return a function that writes a pack with random weights for `core_path`."""
    core, core_header = load_core(core_path)

    def make(path: Path, method="projection", edit=lambda model: None, seed=3) -> Path:
        model = new_category(method, core, LANDMARKS)
        model.load_state_dict(randomised(model, crops, seed).state_dict())
        with torch.no_grad():
            edit(model)
        header = {
            "category": "teapots",
            "method": method,
            "scope": "all",
            "train_plain_convs": False,
            "core_sha256": core_header["sha256"] if method != "scratch" else "",
            "crop_scale": 1.25,
            "landmark_names": default_names(LANDMARKS),
        }
        save_pack(path, model, header)
        return path

    return make


@pytest.fixture(scope="session")
def pack_path(make_pack, tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("pack") / "teapots.safetensors")


@pytest.fixture(scope="session")
def exported(pack_path, core_path, crops, template, tmp_path_factory):
    """The file and the contract of a whole export of `pack_path`, but for the trace."""
    path = tmp_path_factory.mktemp("exported") / "teapots.onnx"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lmk.export.graph.pack.template_of", lambda network: template)
        return path, export_pack(pack_path, core_path, path, crops)


@pytest.fixture
def same_trace(template, monkeypatch):
    """Let `export_pack` take the shared template, also where the cache is another."""

    def template_of(network):
        return with_landmarks(template, network.num_landmarks)

    monkeypatch.setattr("lmk.export.graph.pack.template_of", template_of)


@pytest.fixture
def eager_landmarks(pack_path, core_path, crops):
    """What the unfolded network of `pack_path` finds in `crops`, step by step as in training."""
    model, _ = load_pack(pack_path, core_path)
    images = torch.from_numpy(np.moveaxis(crops, 3, 1).copy()).float() / 255
    with torch.no_grad():
        return to_pixels(soft_argmax(model(images))).numpy()
