"""The two preparations of AFLW: order of coordinates, duplicates, Windows' ways."""

from collections import Counter

import numpy as np
import pytest
import scipy.io

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.aflw import AFLW, MTFL

POINTS = np.array([[30.5, 40], [70, 41], [50, 60], [35, 80], [66, 81]])  # x, y
TRAIN = ["0/image1_10.jpg", "2/image2_11.jpg", "3/image3_12.jpg"]
TEST = ["0/image4_13.jpg", "0/image5_14.jpg", "0/image4_13.jpg"]  # one twice, as in the real list


def splits(data):
    return Counter(sample.split for sample in data.samples)


@pytest.fixture
def aflw(tmp_path, picture):
    """Return a function that writes a list, its points (y, x) and its images."""

    def write(split, names, points=None, newline="\n"):
        for name in names:
            picture(f"output/{name}", (150, 120))
        text = "".join(f"{name}\n" for name in names)
        (tmp_path / f"aflw_{split}_images.txt").write_text(text, newline=newline)
        if points is None:
            points = np.repeat(POINTS[None], len(names), 0)
        gt = np.asarray(points)[:, :, ::-1]
        sizes = np.full((len(names), 2), (120, 150), np.uint16)
        path = tmp_path / f"aflw_{split}_keypoints.mat"
        scipy.io.savemat(path, {"gt": gt, "hw": sizes}, do_compression=True)
        return tmp_path

    return write


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_aflw(aflw, newline):
    aflw("train", TRAIN, newline=newline)
    root = aflw("test", TEST, newline=newline)
    data = AFLW.open(root)
    assert AFLW.recognises(root) and not MTFL.recognises(root)
    assert data.landmark_names == ("l_eye", "r_eye", "nose", "l_mouth", "r_mouth")
    assert data.landmark_names == AFLW.names(root)
    assert splits(data) == {"train": 3, "test": 2}
    assert data.problems == ("images listed more than once: 0/image4_13.jpg",)
    for sample in data.samples:
        np.testing.assert_array_equal(sample.points, POINTS.astype(np.float32))
        assert sample.read().shape == (120, 150, 3) and sample.box is None


def test_an_image_of_both_lists_is_held_out(aflw):
    aflw("train", [*TRAIN, TEST[1]])
    data = AFLW.open(aflw("test", TEST[:2]))
    assert splits(data) == {"train": 3, "test": 2}
    assert data.problems == ("images listed more than once: 0/image5_14.jpg",)


def test_points_of_no_use_and_absent_images(aflw):
    points = np.repeat(POINTS[None], 3, 0)
    points[0, 2] = np.nan
    points[1, 1] = points[1, 0]
    aflw("test", TEST[:2])
    root = aflw("train", TRAIN, points)
    (root / "output" / TEST[0]).unlink()
    data = AFLW.open(root)
    assert splits(data) == {"train": 1, "test": 1}
    assert data.problems == (
        f"images listed but absent: {TEST[0]}",
        f"annotations that are not finite: {TRAIN[0]}",
        f"annotations whose inter-ocular length is zero: {TRAIN[1]}",
    )


def test_one_list_alone_is_told(aflw):
    data = AFLW.open(aflw("test", TEST[:2]))
    assert splits(data) == {"test": 2}
    assert data.problems == ("absent lists: aflw_train_images.txt",)


def test_a_list_that_does_not_fit_its_points(aflw):
    root = aflw("test", TEST[:2])
    (root / "aflw_test_images.txt").write_text(TEST[0])
    with pytest.raises(
        UserError, match=r"'gt' of shape \(2, 5, 2\) .*expected numbers of shape \(1, 5, 2\)"
    ):
        AFLW.open(root)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: scipy.io.savemat(path, {"hw": np.zeros((2, 2))}), "expected 'gt'"),
        (lambda path: scipy.io.savemat(path, {"gt": "text"}), "'gt' of shape"),
    ],
)
def test_points_that_cannot_be_read(aflw, spoil, complaint):
    root = aflw("test", TEST[:2])
    spoil(root / "aflw_test_keypoints.mat")
    with pytest.raises(UserError, match=f"aflw_test_keypoints.mat: .*{complaint}"):
        AFLW.open(root)


NUMBERS = (
    "31.500000 71.000000 51.000000 36.000000 67.000000 "
    "41.000000 42.000000 61.000000 81.000000 82.000000 1 2 2 3"
)


@pytest.fixture
def mtfl(tmp_path, picture):
    """Return a function that writes the lists and images of MTFL, as on Windows."""

    def write(test=None, train=None, newline="\r\n"):
        for name in ("AFLW/0001-image20056", "AFLW/0002-image1", "net_7876/0_0_0"):
            picture(f"{name}.jpg", (150, 120))
        picture("lfw_5590/Aaron_Eckhart_0001.jpg", (150, 120))
        test = test or f"AFLW\\0001-image20056.jpg {NUMBERS}\nAFLW\\0002-image1.jpg {NUMBERS}\n"
        # Its real training.txt begins each line and ends the file with a space.
        path = "lfw_5590\\Aaron_Eckhart_0001.jpg"
        train = train or f" {path} {NUMBERS}\n net_7876\\0_0_0.jpg {NUMBERS}\n "
        (tmp_path / "testing.txt").write_text(test, newline=newline)
        (tmp_path / "training.txt").write_text(train, newline=newline)
        return tmp_path

    return write


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_mtfl(mtfl, newline):
    root = mtfl(newline=newline)
    data = MTFL.open(root)
    assert MTFL.recognises(root) and not AFLW.recognises(root)
    assert {sample.name: sample.split for sample in data.samples} == {
        "AFLW/0001-image20056.jpg": "test",
        "AFLW/0002-image1.jpg": "test",
        "lfw_5590/Aaron_Eckhart_0001.jpg": "train",
        "net_7876/0_0_0.jpg": "train",
    }
    assert data.problems == () and data.landmark_names == MTFL.names(root)
    for sample in data.samples:  # Matlab's pixels count from 1
        np.testing.assert_array_equal(sample.points, POINTS.astype(np.float32))
        assert sample.read().shape == (120, 150, 3)


def test_mtfl_cut_short_with_absent_images(mtfl):
    test = f"AFLW\\0001-image20056.jpg {NUMBERS}\nAFLW\\0009-image3.jpg {NUMBERS}\n"
    data = MTFL.open(mtfl(test + f"AFLW\\0002-image1.jpg {NUMBERS[:40]}"))
    assert splits(data) == {"test": 1, "train": 2}
    assert data.problems == (
        "lines of testing.txt that are not a name and 14 numbers: line 3",
        "images listed but absent: AFLW/0009-image3.jpg",
    )
