"""verify: agreement is measured on random weights too, and disagreement stops the export."""

import copy
import json

import numpy as np
import pytest
import torch

from lmk.export.graph import verify as verification
from lmk.export.graph.half import halve
from lmk.export.graph.template import fill
from lmk.export.graph.trace import fold
from lmk.export.graph.verify import (
    FLAT_SCORE,
    LIMITS_PX,
    DriftError,
    _check_limits,
    _differences,
    probe_crops,
    randomised,
    verify,
    verify_randomised,
)
from lmk.runtime.errors import UserError
from lmk.train.network.category import new_category
from lmk.train.network.projection import ProjectedConv2d, project

PAIRS = {"eager-folded", "eager-onnxruntime", "folded-onnxruntime"}


@pytest.fixture(scope="module")
def onnx_bytes(onnx_model):
    return onnx_model.SerializeToString()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("method", "scope"),
    [("projection", "all"), ("projection", "blocks"), ("finetune", "all"), ("scratch", "all")],
)
def test_eager_folded_and_onnxruntime_agree(core, template, crops, method, scope, seed):
    model = randomised(new_category(method, core, 5, scope), crops, seed)
    filled = fill(template, model, {"method": method, "scope": scope, "train_plain_convs": False})
    report = verify(model, fold(model), filled, crops)
    assert report["max_px"] < LIMITS_PX["fp32"]["max"] / 5, report  # rounding is far from it


def test_report(adapted, onnx_bytes, crops):
    report = verify(adapted, fold(adapted), onnx_bytes, crops)
    assert json.loads(json.dumps(report)) == report
    assert report["crops"] == len(crops)
    assert (report["precision"], report["limits_px"]) == ("fp32", {"max": 0.01})
    assert report["pairs"].keys() == PAIRS
    for pair in report["pairs"].values():
        for statistic in ("mean", "p99", "max"):
            assert len(pair[f"landmarks_{statistic}_px"]) == 5
        assert max(pair["landmarks_max_px"]) == pair["max_px"]
        assert 0 <= pair["mean_px"] <= pair["p99_px"] <= pair["max_px"] <= report["max_px"]
    assert report["pairs"]["eager-folded"]["max_px"] > 0  # they are not the same object


def test_wrong_weight_in_the_folded_model_is_found(adapted, onnx_bytes, crops):
    folded = fold(adapted)
    folded.head.weight[3] *= 1.01
    with pytest.raises(DriftError, match=r"landmark 'p3': got .* px \(max\) between .*folded"):
        verify(adapted, folded, onnx_bytes, crops)


def test_wrong_weight_in_the_file_is_found(adapted, template, crops):
    folded, wrong = fold(adapted), copy.deepcopy(adapted)
    wrong.head.weight[1] *= 1.01
    with pytest.raises(
        UserError, match=r"'left eye'.*onnxruntime, expected at most 0\.01 px in fp32; "
    ):
        verify(
            adapted,
            folded,
            fill(template, wrong, {"method": "projection", "scope": "all"}),
            crops,
            ["nose", "left eye", "a", "b", "c"],
        )


def test_nan_is_drift(adapted, onnx_bytes, crops):
    folded = fold(adapted)
    folded.head.weight[2, 0] = float("nan")
    with pytest.raises(DriftError, match=r"landmark 'p2': got a drift of nan px"):
        verify(adapted, folded, onnx_bytes, crops)


def found(offsets, scores):
    """Landmarks that are `offsets` (N,K) px to the right of the origin, with `scores`."""
    landmarks = np.zeros((*np.shape(offsets), 2), np.float32)
    landmarks[..., 0] = offsets
    return landmarks, np.full(np.shape(offsets), scores, np.float32)


def test_drift_is_split_by_the_score_of_the_trained_network():
    scores = [[0.9, FLAT_SCORE], [0.49, 0.1]]
    report = _differences(found([[0, 0], [0, 0]], scores), found([[1, 3], [10, 30]], 0.7))
    assert (report["mean_px"], report["max_px"]) == (11, 30)
    assert report["landmarks_mean_px"] == [5.5, 16.5]
    assert report["confident"]["share"] == report["flat"]["share"] == 0.5
    assert (report["confident"]["mean_px"], report["confident"]["max_px"]) == (2, 3)
    assert (report["flat"]["mean_px"], report["flat"]["max_px"]) == (20, 30)
    np.testing.assert_allclose(report["scores_max"], 0.6, atol=1e-6)


def test_without_flat_heatmaps_their_part_is_empty():
    report = _differences(found([[0, 0]], 0.9), found([[1, 3]], 0.9))
    assert report["flat"] == {"share": 0.0}


@pytest.mark.parametrize(
    ("offsets", "precision", "message"),
    [
        (
            [0, 0.3],
            "fp16",
            r"'nose': got a drift of 0\.3 px \(mean\) .* at most 0\.1 px in fp16; .*bf16",
        ),
        ([0, 0.3], "int8", None),
        (
            [0.5, 0.2],
            "int8",
            r"'eye': got a drift of 0\.5 px \(mean\) .* 0\.3 px in int8; .*--data",
        ),
        ([float("nan"), 9], "fp8", r"'eye': got a drift of nan px"),
    ],
)
def test_limits_by_precision_name_the_worst_landmark(offsets, precision, message):
    report = _differences(found([[0, 0]], 0.9), found([offsets], 0.9))
    if message is None:
        _check_limits("eager-emulated", report, ["eye", "nose"], precision)
        return
    with pytest.raises(DriftError, match=message):
        _check_limits("eager-emulated", report, ["eye", "nose"], precision)


def test_few_landmarks_far_away_exceed_the_99th_percentile():
    offsets = np.zeros((50, 2))
    offsets[:2, 1] = 5  # 2 of 100: 0.1 px on average
    report = _differences(found(np.zeros((50, 2)), 0.9), found(offsets, 0.9))
    with pytest.raises(DriftError, match=r"'nose': got a drift of 5 px \(p99\)"):
        _check_limits("eager-emulated", report, ["eye", "nose"], "int8")


def test_half_precision_is_measured_on_the_emulation(adapted, onnx_model, crops):
    data = halve(onnx_model, "fp16").SerializeToString()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(LIMITS_PX, "fp16", {"mean": 20.0})
        report = verify(adapted, fold(adapted), data, crops, precision="fp16")
    assert report["pairs"].keys() == {"eager-folded", "eager-emulated", "folded-emulated"}
    assert report["pairs"]["eager-emulated"]["mean_px"] > report["pairs"]["eager-folded"]["mean_px"]


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


def test_random_weights_find_what_the_identity_hides(core, template, crops, monkeypatch):
    """A fold that forgets W is right on a pack that has hardly been trained."""

    def forgetful(model):
        folded = fold(model)
        for name, layer in model.named_modules():
            if isinstance(layer, ProjectedConv2d):
                folded.get_submodule(name).weight.copy_(layer.theta)
        return folded

    def filled(model):
        return fill(template, fold(model), {"method": "finetune", "scope": "all"})

    model = project(core, 5).eval()
    folded = forgetful(model)
    verify(model, folded, fill(template, folded, {"method": "finetune", "scope": "all"}), crops)
    verify_randomised(model, filled)
    monkeypatch.setattr(verification, "fold", forgetful)
    with pytest.raises(DriftError, match="self-check with random weights: landmark"):
        verify_randomised(model, filled)


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
