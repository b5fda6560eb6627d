"""The benchmark of naming, on drawings and a network that knows nothing."""

import json

import pytest
import torch
from click.testing import CliRunner

from lmk.benchmarks.studies import naming
from lmk.runtime.errors import UserError
from lmk.runtime.model.weights import read_header
from lmk.train.network.category import new_category, save_pack
from lmk.train.network.checkpoint import save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork


@pytest.fixture
def pack(tmp_path):
    torch.manual_seed(0)
    core = LandmarkNetwork(HourglassConfig(14, width=16, input_size=64)).eval()
    save_core(tmp_path / "core.safetensors", core, {})
    header = {"category": "puppet", "method": "projection", "scope": "all", "crop_scale": 1.0}
    header |= {"train_plain_convs": False, "landmark_names": ["p0", "p1", "p2"]}
    header |= {"core_sha256": read_header(tmp_path / "core.safetensors")["sha256"]}
    model = new_category("projection", core, 3).eval()
    save_pack(tmp_path / "puppet.safetensors", model, header)
    return tmp_path / "puppet.safetensors"


def call(pack, data, *more):
    arguments = [str(pack), "--data", data, "--draws", "2", *more]
    return CliRunner().invoke(naming.main, arguments, catch_exceptions=False)


def test_errors_of_draws(tiny, pack):
    result = call(pack, "builtin:puppet", "--images", "5", "--images", "8")
    found = json.loads(result.stdout)
    assert list(found["images"]) == ["5", "8"] and found["test_images"] == 4
    assert found["normaliser"] == "torso" and found["alike_images"] > 10
    for row in found["images"].values():
        assert 0 <= row["refused"] <= 2
        for name in naming.ROWS:
            assert row[f"{name}_percent"]["mean"] > 0 <= row[f"{name}_percent"]["sd"]
        assert row["worst_named_percent"] >= row["named_percent"]["mean"]


def test_names_without_a_length(tiny, pack):
    with pytest.raises(UserError, match="builtin:butterfly: got no names with a length"):
        call(pack, "builtin:butterfly", "--images", "5")
