"""The three measures on detectors whose answers are known."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train.config import EVALUATE_PRESETS, EvaluateConfig
from lmk.train.datasets.sample import NO_SCHEME, Normaliser, scheme_of
from lmk.train.judge.evaluation import _covered, evaluate, spread_over


def measure(model, data, fit_on=None, **options):
    return evaluate(model, data, EvaluateConfig(**options), fit_on=fit_on)


def turn(degrees):
    """Points (…,2) times this are turned."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, sin], [-sin, cos]])


@pytest.fixture
def perfect(detectors):
    return detectors.Perfect()


@pytest.fixture
def apart(detectors):
    """Always says the same three points."""
    return detectors.Constant((3, 3), (12, 3), (8, 12))


def test_a_perfect_detector(spots, perfect):
    report = measure(perfect, spots)
    assert report["consistency_px"] < 0.2 and report["following"] == pytest.approx(1, abs=0.01)
    assert report["consistency_still_px"] > 3
    assert report["forward_percent"] < 0.5 and report["backward_percent"] < 0.5
    assert report["forward_mean_shape_percent"] > 10  # ± 5 pixels of about 20
    assert not report["collapsed"] and report["collapsed_because"] == ""
    assert (report["test_images"], report["regressor_images"]) == (10, 20)
    assert (report["normaliser"], report["data"]) == ("inter-ocular", "spots")
    assert (report["images_incomplete"], report["images_without_length"]) == (0, 0)
    json.dumps(report, allow_nan=False)


def test_the_report_says_how_it_was_taken(spots, perfect):
    report = measure(perfect, spots)
    assert (report["crop"], report["leak_free"], report["batch_norm"]) == ("image", True, "eval")
    fitted = evaluate(perfect, spots, EvaluateConfig(batch_norm="batch"), crop="annotation")
    assert (fitted["crop"], fitted["leak_free"]) == ("annotation", False)
    assert fitted["batch_norm"] == fitted["options"]["batch_norm"] == "batch"


def test_presets_are_configs():
    default, released = (EvaluateConfig(**EVALUATE_PRESETS[n]) for n in ("default", "released"))
    assert default == EvaluateConfig() and default.batch_norm == "eval" and default.bias
    assert (released.batch_norm, released.batch) == ("batch", 30)
    assert released.rotation == pytest.approx(15 * math.sqrt(3), abs=0.1)  # its spread is 15°
    assert (released.scale, released.shift) == (0.0, 0.0)


def test_errors_are_in_percent_of_the_normaliser(spots, apart):
    """Twice the distance between the eyes, half the percentage of the same mean shape."""
    wide = spots.points.copy()
    wide[:, 1, 0] += 20.0
    near = measure(apart, spots)["forward_mean_shape_percent"]
    far = measure(apart, replace(spots, points=wide))["forward_mean_shape_percent"]
    assert far == pytest.approx(near / 2, rel=0.1)


def test_the_mean_shape_by_hand(spots, perfect):
    truth = spots.points[20:]
    lengths = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)
    errors = np.linalg.norm(truth - spots.points[:20].mean(axis=0), axis=2).mean(axis=1)
    expected = 100 * (errors / lengths).mean()
    report = measure(perfect, spots)
    assert report["forward_mean_shape_percent"] == pytest.approx(expected, rel=1e-4)


def test_covered_is_the_share_of_points_in_reach_of_a_landmark(spots, perfect, detectors):
    assert measure(perfect, spots)["covered_percent"] == 100
    truth = spots.points[20:] - 8  # of crops of 64 in images of 80
    boxes = np.array([np.ptp(truth @ turn(degrees), axis=1) for degrees in range(90)])  # (90,N,2)
    boxes = boxes[boxes.prod(axis=2).argmin(axis=0), np.arange(len(truth))]
    area = boxes.max(axis=1) * np.maximum(boxes.min(axis=1), boxes.max(axis=1) / 2)
    away = np.linalg.norm(truth - (21.5, 25.5), axis=2)  # the middle of cell 5, 6
    expected = 100 * (away <= np.sqrt(area)[:, None] / 4).mean()
    assert 0 < expected < 100 / 3  # of the three spots one is near, now and then
    blob = detectors.Constant((5, 6), (5, 6), (5, 6))
    assert measure(blob, spots)["covered_percent"] == pytest.approx(expected)


def test_what_is_covered_does_not_hang_on_how_the_object_is_turned():
    points = np.array([[-50, -10], [50, -10], [50, 10], [-50, 10]], float)
    shares = []
    found = points[:3] + ((12, 0), (-17, 0), (0, -30))
    for degrees in (0, 15, 45, 90, 170):
        both = [(each @ turn(degrees))[None] for each in (points, found)]
        shares.append(_covered(*both))
    assert shares == [50] * 5  # 17.7 pixels are a quarter of a box that is half as wide as long
    level = np.array([[[0, 0], [36, 0]], [[0, 0], [36, 0.5]]])
    assert _covered(level, level + 3) == 100


def test_points_that_are_missing_are_not_covered_nor_uncovered(spots, perfect):
    gaps = spots.points.copy()
    gaps[20:25, 2] = np.nan  # two that are left span a box
    gaps[25] = gaps[25, :1]  # all in one place span none
    assert measure(perfect, replace(spots, points=gaps))["covered_percent"] == 100
    gaps[20:, 1:] = np.nan
    gaps[29] = 20.0
    lengths = np.full(30, 10, np.float32)
    scheme = replace(spots.scheme, normaliser=Normaliser("given", "sample"))
    single = replace(spots, points=gaps, lengths=lengths, scheme=scheme)
    report = measure(perfect, single)
    assert report["covered_percent"] is None
    json.dumps(report, allow_nan=False)


def test_a_constant_detector_is_the_mean_shape_and_collapsed(spots, apart):
    report = measure(apart, spots)
    assert report["forward_percent"] == pytest.approx(
        report["forward_mean_shape_percent"], rel=1e-3
    )
    assert report["backward_percent"] < 0.1  # which is why it is never quoted alone
    assert report["consistency_px"] == pytest.approx(report["consistency_still_px"], rel=1e-4)
    assert report["following"] == pytest.approx(0, abs=1e-6)
    assert report["spread_px"] > 30
    assert report["collapsed"] and "stay where they are" in report["collapsed_because"]


def test_a_blob_is_collapsed(spots, detectors):
    report = measure(detectors.Constant((8, 8), (8, 8), (7, 8)), spots)
    assert report["collapsed"] and "one blob" in report["collapsed_because"]
    # Of a crop of 64, a cell being 4 pixels, told for one of 128.
    assert report["spread_px"] == pytest.approx(2 * 4 * math.sqrt(2 / 9), abs=1e-3)


def test_consistency_is_ascending_and_seeded(spots, apart):
    report = measure(apart, spots)
    each = report["consistency_px_each"]
    assert each == sorted(report["consistency_px_landmarks"]) and len(each) == 3
    assert report["consistency_px"] == pytest.approx(sum(each) / 3)
    assert measure(apart, spots, batch=3)["consistency_px"] == pytest.approx(
        report["consistency_px"], rel=1e-5
    )
    assert measure(apart, spots, seed=1)["consistency_px"] != report["consistency_px"]


def test_without_a_transform_everything_is_consistent(spots, apart):
    report = measure(apart, spots, rotation=0.0, scale=0.0, shift=0.0)
    assert report["consistency_px"] == pytest.approx(0, abs=1e-4)
    assert report["following"] is None and not report["collapsed"]


def test_a_landmark_that_is_never_in_sight(spots, perfect):
    class Lost(type(perfect)):
        def forward(self, images):
            maps = super().forward(images).clone()
            maps[:, 1] = -10.0
            maps[:, 1, 0, 0] = 10.0
            return maps

    options = {"rotation": 0.0, "scale": 1.0, "shift": 0.0, "images": 3}
    for seed in range(20):  # enlarged every time, so that the corner is out of sight
        report = measure(Lost(), spots, seed=seed, **options)
        if report["consistency_px_landmarks"][1] is None:
            break
    first, lost, third = report["consistency_px_landmarks"]
    assert lost is None and first < 1 and third < 1
    assert report["consistency_px_each"] == sorted([first, third])
    json.dumps(report, allow_nan=False)


def test_no_landmark_is_ever_in_sight(spots, perfect):
    report = measure(perfect, spots, shift=40.0, images=2)
    assert report["consistency_px"] is None and report["consistency_px_each"] == []
    json.dumps(report, allow_nan=False)


def test_unlabelled_data_has_no_regression(spots, perfect):
    report = measure(perfect, replace(spots, scheme=NO_SCHEME, points=spots.points[:, :0]))
    assert "forward_percent" not in report and report["consistency_px"] < 0.2


def test_at_most_so_many_images(spots, perfect):
    report = measure(perfect, spots, images=4, regressor_images=9)
    assert (report["test_images"], report["regressor_images"]) == (4, 9)


def test_fewer_images_are_spread_over_all():
    indices = np.arange(100, 110)
    assert spread_over(indices, 5).tolist() == [100, 102, 104, 106, 108]
    assert spread_over(indices, 3).tolist() == [100, 103, 106]
    for count in (None, 10, 11):
        assert spread_over(indices, count).tolist() == indices.tolist()


def test_images_with_a_missing_point_do_not_count(spots, perfect):
    points = spots.points.copy()
    points[:5, 2], points[20:23, 0] = np.nan, np.nan
    report = measure(perfect, replace(spots, points=points))
    assert (report["regressor_images"], report["regressor_test_images"]) == (15, 7)
    assert report["images_incomplete"] == 8 and report["images_without_length"] == 0
    assert report["forward_percent"] < 0.5


def test_eyes_in_one_place_do_not_count(spots, perfect):
    points = spots.points.copy()
    points[20:22, 1] = points[20:22, 0]
    report = measure(perfect, replace(spots, points=points))
    assert (report["images_without_length"], report["regressor_test_images"]) == (2, 8)
    json.dumps(report, allow_nan=False)


def test_eyes_in_one_place_everywhere(spots, perfect):
    points = spots.points.copy()
    points[:, 1] = points[:, 0]
    message = r"spots: got no test image whose length to divide by \(inter-ocular\) is over 0"
    with pytest.raises(UserError, match=message):
        measure(perfect, replace(spots, points=points))


def test_no_image_that_was_held_out(spots, perfect):
    one = replace(spots, images=spots.images[:1], points=spots.points[:1], splits=("",))
    with pytest.raises(UserError, match="spots: got no image to evaluate on, expected 2 or more"):
        measure(perfect, one)


def test_too_few_whole_annotations(spots, perfect):
    points = spots.points.copy()
    points[1:20, 0] = np.nan
    message = "spots: got 1 training images of spots and 10 test images with every point annotated"
    with pytest.raises(UserError, match=message):
        measure(perfect, replace(spots, points=points))


def test_a_set_that_is_all_test_needs_one_to_fit_to(spots, perfect):
    with pytest.raises(UserError, match="got 0 training images of spots and 30 .* --fit-data"):
        measure(perfect, replace(spots, splits=("test",) * 30))


def test_too_few_images_for_a_regressor_without_ridge(spots, perfect):
    report = measure(perfect, spots, ridge=0.0, regressor_images=7)
    assert report["forward_images_needed"] == 7 and report["forward_percent"] < 0.5
    with pytest.raises(UserError, match="from 3 points: got 6 training images, expected 7"):
        measure(perfect, spots, ridge=0.0, regressor_images=6)


def test_regressors_without_a_constant_term(spots, perfect):
    """They count from the centre of the crop, so that a perfect detector needs none."""
    assert measure(perfect, spots, bias=False)["forward_percent"] < 1


def _part(data, name, rows):
    fields = ("images", "points", "lengths")
    return replace(
        data,
        name=name,
        splits=("",) * len(data.splits[rows]),
        names=data.names[rows],
        **{field: getattr(data, field)[rows] for field in fields},
    )


def test_regressors_fitted_to_another_set(spots, perfect):
    ours, theirs = _part(spots, "ours", slice(20, 30)), _part(spots, "theirs", slice(20))
    report = measure(perfect, ours, fit_on=theirs)
    assert (report["data"], report["fitted_on"]) == ("ours", "theirs")
    # A tenth of theirs is held out, as in the adaptation to it; ours has no split and is all test.
    assert (report["test_images"], report["regressor_images"]) == (10, 18)
    assert report["forward_percent"] < 0.5
    mean = theirs.points.mean(axis=0)
    assert report["forward_mean_shape_percent"] == pytest.approx(
        100
        * np.mean(
            np.linalg.norm(ours.points - mean, axis=2).mean(axis=1)
            / np.linalg.norm(ours.points[:, 0] - ours.points[:, 1], axis=1)
        ),
        rel=0.1,
    )


def test_a_set_annotated_otherwise_cannot_be_fitted_to(spots, perfect):
    other = replace(spots, name="other", scheme=scheme_of(("l_eye", "r_eye", "chin")))
    got, expected = "3 (l_eye, r_eye, chin)", "3 (l_eye, r_eye, nose)"
    message = f"other: got landmarks {got}, expected those of spots: {expected}; "
    with pytest.raises(UserError, match=re.escape(message)):
        measure(perfect, spots, fit_on=other)
    many = replace(spots, name="other", scheme=scheme_of([f"p{i}" for i in range(68)]))
    with pytest.raises(UserError, match=re.escape("got landmarks 68 (p0, p1, p2, p3, p4, …), ")):
        measure(perfect, spots, fit_on=many)


def test_threads_are_as_asked_for(spots, perfect):
    measure(perfect, spots, images=2, threads=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
