"""probe: the same crops everywhere, and a model that finds other things in them is refused."""

import hashlib

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.model.probe import (
    COUNT,
    LIMITS_PX,
    check,
    compare,
    probe_crops,
    record,
    run_onnx,
    shaken,
)

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def probe(model_path):
    return record(*run_onnx(model_path.read_bytes(), probe_crops(64)))


def test_crops_never_change():
    """Packs that were written with them would no longer verify."""
    digest = hashlib.sha256(probe_crops(128).tobytes()).hexdigest()
    assert digest == "0dab4ddcafff91b0e1f98cad1580b4c8608ef3e1254180ff07f0c15dc72290b4"


def test_crops_are_smooth_textured_and_seeded():
    crops = probe_crops(64, 3, seed=7)
    assert crops.dtype == np.uint8 and crops.shape == (3, 64, 64, 3)
    assert crops.std() > 40
    assert np.abs(np.diff(crops.astype(int), axis=1)).mean() < 12  # white noise: 85
    assert np.array_equal(crops, probe_crops(64, 3, seed=7))
    assert not np.array_equal(crops, probe_crops(64, 3, seed=8))
    assert not np.array_equal(crops[0], crops[1])


def test_noise_is_small_and_never_changes():
    crops = np.concatenate([probe_crops(64), np.zeros((1, 64, 64, 3), np.uint8)])
    moved = shaken(crops).astype(int) - crops
    assert set(np.unique(moved[:-1])) == set(range(-4, 5)) and abs(moved[:-1].mean()) < 0.02
    assert moved[-1].min() == 0  # of what is black already
    assert np.array_equal(shaken(crops), shaken(crops))


def test_a_model_agrees_with_its_own_probe(model_path, probe):
    report = check(model_path.read_bytes(), probe, 64, NAMES, "pack")
    assert report["reference"] == "probe" and report["crops"] == COUNT
    assert report["limits_px"] == LIMITS_PX["fp32"]
    assert 0 <= report["mean_px"] <= report["max_px"] < 1e-4
    assert len(report["landmarks_max_px"]) == 3 and report["scores_max"] < 1e-4


@pytest.mark.parametrize("shift", [0.02, float("nan")])
def test_the_landmark_that_is_off_is_named(model_path, probe, shift):
    landmarks = np.array(probe["landmarks"])
    landmarks[2, 1, 0] += shift
    wrong = probe | {"landmarks": landmarks.tolist()}
    with pytest.raises(UserError, match=r"^pack: landmark 'green': got a drift of .* 0\.01 px"):
        check(model_path.read_bytes(), wrong, 64, NAMES, "pack")


def test_a_probe_of_other_landmarks(model_path, probe):
    wrong = probe | {"landmarks": np.array(probe["landmarks"])[:, :2].tolist()}
    with pytest.raises(UserError, match=r"got a probe of \(4, 2, 2\), expected \(4, 3, 2\)"):
        check(model_path.read_bytes(), wrong, 64, NAMES, "pack")


def test_half_precision_may_be_off_a_little(probe):
    """Its limits are those of an export: 0.1 px on average, 0.5 px at the 99th percentile."""

    def off(by, *where, precision="fp16"):
        landmarks = np.array(probe["landmarks"])
        landmarks[where] += by
        found = landmarks, np.array(probe["scores"])
        return compare(found, probe, NAMES, precision, "pack", "cure")

    assert off([0.09, 0])["max_px"] == pytest.approx(0.09)
    with pytest.raises(UserError, match=r"0\.11 px from .* \(mean\), expected at most 0\.1 px; cu"):
        off([0, 0.11])
    with pytest.raises(UserError, match=r"'blue': .* \(p99\), expected at most 0\.5 px"):
        off([0.9, 0], 0, 2)
    with pytest.raises(UserError, match=r"'red': got a drift of nan px .* \(mean\)"):
        off(np.nan, 1, 0, precision="bf16")
    with pytest.raises(UserError, match=r"\(max\), expected at most 0\.01 px"):
        off([0.02, 0], precision="fp32")
