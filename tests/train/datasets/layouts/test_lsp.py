"""Leeds Sports Pose, both sets: shapes, splits, flags, what is absent."""

import numpy as np
import pytest
from scipy.io import savemat

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.lsp import LAYOUT, NAMES, open_lsp
from lmk.train.datasets.sample import Normaliser


@pytest.fixture
def write(tmp_path, picture):
    """Return a function that writes joints.mat and some of the images, and returns the folder."""

    def data(joints, images):
        savemat(tmp_path / "joints.mat", {"joints": joints}, do_compression=True)
        for name in images:
            picture(f"images/{name}.jpg")
        return tmp_path

    return data


def people(count):
    """Points (N,14,2), counted from 1 as in the file."""
    return np.random.default_rng(0).uniform(1, 9, (count, 14, 2))


def lsp(points, hidden=0):
    """As in LSP: 3×14×N, the third row 1 where a joint is hidden."""
    flags = np.full((*points.shape[:2], 1), hidden)
    return np.concatenate([points, flags], axis=2).transpose(2, 1, 0)


def lspet(points, placed):
    """As in LSPET: 14×3×N, the third column 1 where a joint is placed."""
    return np.concatenate([points, placed[..., None]], axis=2).transpose(1, 2, 0)


def test_lsp_is_split_by_number(write):
    points = people(2000)
    data = open_lsp(write(lsp(points), ["im0001", "im1000", "im1001", "im2000"]))
    assert [each.name for each in data.samples] == [
        f"images/im{number}.jpg" for number in ("0001", "1000", "1001", "2000")
    ]
    assert [each.split for each in data.samples] == ["train", "train", "test", "test"]
    assert data.problems == (
        "images of joints.mat that are absent: 1,996, first images/im0002.jpg",
    )
    for sample, index in zip(data.samples, (0, 999, 1000, 1999), strict=True):
        assert sample.points.dtype == np.float32
        np.testing.assert_allclose(sample.points, points[index] - 1, atol=1e-5)


def test_joints_that_nobody_placed_are_missing_in_lspet(write):
    points, placed = people(2), np.ones((2, 14))
    placed[0, 3], points[0, 3] = 0, 0
    data = open_lsp(write(lspet(points, placed), ["im00001", "im00002"]))
    assert [sample.split for sample in data.samples] == ["train", "train"] and not data.problems
    missing = np.isnan(data.samples[0].points).all(axis=1)
    assert missing[3] and missing.sum() == 1
    np.testing.assert_allclose(data.samples[1].points, points[1] - 1, atol=1e-5)


def test_a_single_person_with_hidden_joints(write, tmp_path):
    """Matlab drops the last axis; what is hidden is kept."""
    assert not LAYOUT.recognises(tmp_path)
    data = open_lsp(write(lsp(people(1), hidden=1)[..., 0], ["im0001"]))
    assert LAYOUT.recognises(tmp_path) and np.isfinite(data.samples[0].points).all()
    assert data.landmark_names == NAMES == LAYOUT.names(tmp_path)
    assert data.scheme.flips == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)
    torso = (NAMES.index("l_shoulder"), NAMES.index("r_hip"))
    assert data.scheme.normaliser == Normaliser("torso", torso)
    assert data.samples[0].read().shape == (10, 12, 3)


def test_people_that_cannot_be_used(write):
    points, placed = people(4), np.ones((4, 14))
    points[1, 5, 0], placed[2] = np.nan, 0
    data = open_lsp(write(lspet(points, placed), ["im00001", "im00002", "im00003"]))
    assert [sample.name for sample in data.samples] == ["images/im00001.jpg"]
    assert data.problems == (
        "people with a point that is no number: images/im00002.jpg",
        "people without any point: images/im00003.jpg",
        "images of joints.mat that are absent: images/im00004.jpg",
    )


@pytest.mark.parametrize(
    ("joints", "complaint"),
    [
        (np.zeros((2, 14, 5)), r"got 'joints' of 2×14×5 float64, expected 3×14×N \(LSP\)"),
        ("none", "got 'joints' of 1 <U4, expected 3×14×N"),
        (lsp(people(3)), r"got nothing that can be used.*absent: 3, first images/im0001\.jpg"),
    ],
)
def test_what_cannot_be_used(write, joints, complaint):
    with pytest.raises(UserError, match=complaint):
        open_lsp(write(joints, []))


def test_fingerprint_follows_annotations_and_images(write, picture):
    prints = [open_lsp(write(lsp(people(2)), ["im0001"])).fingerprint]
    prints.append(open_lsp(write(lsp(people(2)), [])).fingerprint)
    picture("images/im0002.jpg")
    prints.append(open_lsp(write(lsp(people(2) + 1), [])).fingerprint)
    assert prints[0] != prints[-1] and prints[1] != prints[-1]
