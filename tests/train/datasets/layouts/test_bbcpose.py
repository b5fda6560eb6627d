"""BBC-Pose: 20 videos in one struct array, by hand in the test videos only."""

import numpy as np
import pytest
from scipy.io import savemat

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.bbcpose import LAYOUT, NAMES, open_bbcpose


@pytest.fixture
def write(tmp_path, picture, struct):
    """Return a function that writes bbcpose.mat of these videos, and returns the folder."""

    def data(*videos, place="code"):
        fields = {"videoName": "x.avi", "type": "train", "source": "buehler11"}
        fields |= {f"{kind}_{what}": None for kind in ("train", "test") for what in KINDS}
        (tmp_path / place).mkdir(exist_ok=True)
        table = struct(*(fields | video for video in videos))
        savemat(tmp_path / place / "bbcpose.mat", {"bbcpose": table}, do_compression=True)
        return tmp_path

    return data


KINDS = ("frames", "joints")


def joints(count, start=1.0):
    """2×7×N, counted from 1: point k of frame n lies at (start + k, start + n + k)."""
    k, n = np.mgrid[:7, :count].astype(float)
    return np.stack([k, n + k]) + start


def video(split, kind, frames, points=None):
    frames = np.array([frames], np.float64)
    return {
        "type": split,
        f"{kind}_frames": frames,
        f"{kind}_joints": joints(frames.size) if points is None else points,
    }


def test_points_placed_by_hand_are_taken_for_testing(write, picture):
    for name in ("1/3.jpg", "1/50.jpg", "2/7.jpg", "3/9.jpg"):
        picture(name)
    by_hand = video("test", "test", [9]) | {
        "train_frames": np.array([[1.0, 2.0]]),
        "train_joints": joints(2),
    }
    root = write(video("train", "train", [3, 50]), video("val", "train", [7]), by_hand)
    data = open_bbcpose(root)
    assert {sample.name: sample.split for sample in data.samples} == {
        "1/3.jpg": "train",
        "1/50.jpg": "train",
        "2/7.jpg": "val",
        "3/9.jpg": "test",
    }
    expected = np.array([[k, 1 + k] for k in range(7)], np.float32)
    np.testing.assert_array_equal(data.samples[1].points, expected)
    assert not data.problems and data.samples[0].read().shape == (10, 12, 3)
    assert data.landmark_names == NAMES == LAYOUT.names(root)
    assert data.scheme.flips == (0, 2, 1, 4, 3, 6, 5) and data.scheme.normaliser.label == "box"


def test_what_is_absent_or_wrong(write, picture):
    for name in ("1/1.jpg", "1/2.jpg", "3/1.jpg", "4/1.jpg"):
        picture(name)
    bad = joints(4)
    bad[0, 2, 1] = np.nan
    root = write(
        video("train", "train", [1, 2, 3, 1], bad),
        video("train", "train", [1]),
        video("train", "train", [1, 2], joints(3)),
        video("test", "test", []),
    )
    data = open_bbcpose(root)
    assert [sample.name for sample in data.samples] == ["1/1.jpg"]
    assert data.problems == (
        "annotations that are not finite: 1/2.jpg",
        "images listed but absent: 1/3.jpg",
        "images listed more than once: 1/1.jpg",
        "folders of videos that are absent or empty: 2",
        "videos without 2×7×N numbers in train_joints for the N of train_frames: 3",
        "videos without 2×7×N numbers in test_joints for the N of test_frames: 4",
    )


def test_a_video_of_one_frame(write, picture):
    """Matlab drops the last axis."""
    picture("1/1.jpg")
    data = open_bbcpose(write(video("train", "train", [1], joints(1)[..., 0])))
    np.testing.assert_array_equal(data.samples[0].points[:, 0], np.arange(7))


def test_extended_bbc_pose_is_not_read(write, picture):
    picture("1/1.jpg")
    picture("21/1.jpg")
    videos = [video("train", "train", [1]) for _ in range(21)]
    data = open_bbcpose(write(*videos))
    assert [sample.name for sample in data.samples] == ["1/1.jpg"]
    assert data.problems == ("folders of videos that are absent or empty: 19, first 2",)


@pytest.mark.parametrize("place", ["code", "bbcpose_extbbcpose_code_1.0", "."])
def test_where_the_annotations_may_lie(write, picture, tmp_path, place):
    assert not LAYOUT.recognises(tmp_path)
    picture("1/1.jpg")
    root = write(video("train", "train", [1]), place=place)
    assert LAYOUT.recognises(root) and len(open_bbcpose(root).samples) == 1


def test_no_annotations_and_no_struct_array(tmp_path):
    with pytest.raises(UserError, match=r"got an empty folder, expected code/bbcpose\.mat and"):
        LAYOUT.open(tmp_path)
    savemat(tmp_path / "bbcpose.mat", {"bbcpose": np.zeros((3, 3))})
    with pytest.raises(UserError, match="expected the images of layout bbcpose; it holds no image"):
        open_bbcpose(tmp_path)
