"""300W-LP: which points, which folders, and what is missing."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from lmk.train.datasets.layouts.w300lp import FOLDERS, LAYOUT

GRID = np.stack(np.meshgrid(np.arange(17.0), np.arange(4.0)), 2).reshape(68, 2) * 10 + 100.25


def put(root, folder, stem, points=GRID):
    """An image and its points, as the real files are: two sets of points in a file."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (450, 450), (90, 60, 50)).save(root / folder / f"{stem}.jpg")
    scipy.io.savemat(root / folder / f"{stem}.mat", {"Pose_Para": np.zeros((1, 7))})
    if points is not None:
        target = root / "landmarks" / folder / f"{stem}_pts.mat"
        target.parent.mkdir(parents=True, exist_ok=True)
        variables = {"pts_2d": points + 3, "pts_3d": points.astype(np.float32)}
        scipy.io.savemat(target, variables, do_compression=True)
    return f"{folder}/{stem}.jpg"


@pytest.fixture
def root(tmp_path):
    for folder in FOLDERS:
        put(tmp_path, folder, f"{folder}_134212_1_0")
    return tmp_path


def test_all_folders(root):
    put(root, "AFW", "AFW_134212_1_13")
    data = LAYOUT.open(root)
    assert LAYOUT.recognises(root) and len(data.samples) == 5 and data.problems == ()
    assert data.samples[1].name == "AFW/AFW_134212_1_13.jpg"
    assert data.landmark_names == LAYOUT.names(root)
    assert (data.landmark_names[0], data.landmark_names[67]) == ("p0", "p67")
    assert data.scheme.normaliser.pair == (36, 45)
    for sample in data.samples:
        assert sample.split == "train" and sample.box == (45, 95, 360, 360)
        np.testing.assert_array_equal(sample.points, GRID.astype(np.float32))  # pts_3d
    assert data.samples[0].read().shape == (450, 450, 3)


def test_mirrored_copies_are_not_read(root):
    put(root, "AFW_Flip", "AFW_134212_1_0")
    put(root, "LFPW_Flip", "LFPW_134212_1_0")
    data = LAYOUT.open(root)
    assert len(data.samples) == 4 and data.problems == ()
    assert data.notes == ("mirrored copies, not read: 2, first AFW_Flip/",)


def test_what_is_missing_or_broken(root):
    put(root, "AFW", "without", None)
    put(root, "HELEN", "few", GRID[:20])
    nan, same = GRID.copy(), GRID.copy()
    nan[3], same[45] = np.nan, same[36]
    put(root, "HELEN", "nan", nan)
    put(root, "HELEN", "same", same)
    put(root, "HELEN", "short")
    short = root / "landmarks/HELEN/short_pts.mat"
    short.write_bytes(short.read_bytes()[:300])
    (root / "IBUG/IBUG_134212_1_0.jpg").unlink()
    data = LAYOUT.open(root)
    assert [sample.name.split("/")[0] for sample in data.samples] == ["AFW", "HELEN", "LFPW"]
    assert len(data.problems) == 5
    told = "\n".join(data.problems)
    assert "images without points: AFW/without.jpg" in told
    assert "points that cannot be read: 2, first landmarks/HELEN/few_pts.mat: got (20, 2)" in told
    assert "annotations that are not finite: HELEN/nan.jpg" in told
    assert "annotations whose inter-ocular length is zero: HELEN/same.jpg" in told
    assert "folders without images: IBUG/" in told


def test_points_in_another_variable(root):
    target = root / "landmarks/AFW/AFW_134212_1_0_pts.mat"
    scipy.io.savemat(target, {"pts_2d": GRID})
    (problem,) = LAYOUT.open(root).problems
    assert "AFW_134212_1_0_pts.mat: got the variables pts_2d, expected 'pts_3d'" in problem
