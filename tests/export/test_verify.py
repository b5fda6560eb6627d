"""verify: agreement is measured on random weights too, and disagreement stops the export."""

import json

import numpy as np
import pytest
import torch

from lmk.export import verify as verification
from lmk.export.fold import fold
from lmk.export.graph import to_onnx
from lmk.export.verify import (
    TOLERANCE_PX,
    DriftError,
    probe_crops,
    randomised,
    verify,
    verify_randomised,
)
from lmk.runtime.errors import UserError
from lmk.train.category import new_category
from lmk.train.projection import ProjectedConv2d, project

PAIRS = {"eager-folded", "eager-onnxruntime", "folded-onnxruntime"}


@pytest.fixture(scope="module")
def onnx_bytes(onnx_model):
    return onnx_model.SerializeToString()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("method", "scope"),
    [("projection", "all"), ("projection", "blocks"), ("finetune", "all"), ("scratch", "all")],
)
def test_eager_folded_and_onnxruntime_agree(core, program, crops, method, scope, seed):
    model = randomised(new_category(method, core, 5, scope), crops, seed)
    folded = fold(model)
    report = verify(model, folded, to_onnx(program, folded).SerializeToString(), crops)
    assert report["max_px"] < TOLERANCE_PX / 5, report  # rounding is far from the tolerance


def test_report(adapted, onnx_bytes, crops):
    report = verify(adapted, fold(adapted), onnx_bytes, crops)
    assert json.loads(json.dumps(report)) == report
    assert report["crops"] == len(crops)
    assert report["tolerance_px"] == 0.01
    assert report["pairs"].keys() == PAIRS
    for pair in report["pairs"].values():
        assert len(pair["landmarks_max_px"]) == 5
        assert max(pair["landmarks_max_px"]) == pair["max_px"]
        assert 0 <= pair["mean_px"] <= pair["max_px"] <= report["max_px"]
    assert report["pairs"]["eager-folded"]["max_px"] > 0  # they are not the same object


def test_wrong_weight_in_the_folded_model_is_found(adapted, onnx_bytes, crops):
    folded = fold(adapted)
    folded.head.weight[3] *= 1.01
    with pytest.raises(DriftError, match=r"landmark 'p3': got a drift of .* px between .*folded"):
        verify(adapted, folded, onnx_bytes, crops)


def test_wrong_weight_in_the_file_is_found(adapted, program, crops):
    folded, wrong = fold(adapted), fold(adapted)
    wrong.head.weight[1] *= 1.01
    with pytest.raises(UserError, match=r"'left eye'.*onnxruntime, expected at most 0\.01 px; "):
        verify(
            adapted,
            folded,
            to_onnx(program, wrong).SerializeToString(),
            crops,
            ["nose", "left eye", "a", "b", "c"],
        )


def test_nan_is_drift(adapted, onnx_bytes, crops):
    folded = fold(adapted)
    folded.head.weight[2, 0] = float("nan")
    with pytest.raises(DriftError, match=r"landmark 'p2': got a drift of nan px"):
        verify(adapted, folded, onnx_bytes, crops)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((2, 3, 64, 64), np.uint8),
        np.zeros((2, 32, 32, 3), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
    ],
)
def test_wrong_crops_are_refused(adapted, onnx_bytes, bad):
    with pytest.raises(ValueError, match="crops: got .* expected uint8"):
        verify(adapted, fold(adapted), onnx_bytes, bad)


def test_random_weights_find_what_the_identity_hides(core, program, crops, monkeypatch):
    """A fold that forgets W is right on a pack that has hardly been trained."""

    def forgetful(model):
        folded = fold(model)
        for name, layer in model.named_modules():
            if isinstance(layer, ProjectedConv2d):
                folded.get_submodule(name).weight.copy_(layer.theta)
        return folded

    model = project(core, 5).eval()
    folded = forgetful(model)
    verify(model, folded, to_onnx(program, folded).SerializeToString(), crops)
    verify_randomised(model, program)
    monkeypatch.setattr(verification, "fold", forgetful)
    with pytest.raises(DriftError, match="self-check with random weights: landmark"):
        verify_randomised(model, program)


def test_randomised_is_a_seeded_copy_far_from_the_identity(core, crops):
    model = project(core, 5).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, same, other = (randomised(model, crops, seed) for seed in (4, 4, 5))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert torch.equal(one.state_dict()[name], same.state_dict()[name]), name
    w = one.block1.conv1.projection
    assert not torch.equal(w, other.block1.conv1.projection)
    assert (w - torch.eye(len(w))).norm() > 1
    assert torch.linalg.cond(w) < 3.1
    assert not one.training


def test_probe_crops_are_smooth_textured_and_seeded():
    crops = probe_crops(64, 3, seed=7)
    assert crops.shape == (3, 64, 64, 3)
    assert crops.dtype == np.uint8
    assert np.array_equal(crops, probe_crops(64, 3, seed=7))
    assert not np.array_equal(crops, probe_crops(64, 3, seed=8))
    pixels = crops.astype(float)
    assert pixels.std(axis=(1, 2)).min() > 30
    assert np.abs(np.diff(pixels, axis=2)).mean() < pixels.std() / 4
