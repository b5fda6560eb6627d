"""A folder of images: all of them, at any depth, and nothing else."""

import os

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.folder import open_folder


def put(path, size=(6, 5), colour=(200, 10, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_recursive_sorted_and_by_suffix(tmp_path):
    for name in ("b.jpg", "a/z.PNG", "a/deep/er/c.webp", "a.bmp"):
        put(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    data = open_folder(tmp_path)
    assert [s.name for s in data.samples] == ["a/deep/er/c.webp", "a/z.PNG", "a.bmp", "b.jpg"]
    assert data.name == tmp_path.name and data.landmark_names == ()
    for sample in data.samples:
        assert sample.points.shape == (0, 2) and sample.split == ""
        assert np.abs(sample.read().astype(int) - (200, 10, 10)).max() < 10


@pytest.mark.parametrize("other", [None, "notes.txt"])
def test_no_image_says_what_was_expected(tmp_path, other):
    if other:
        (tmp_path / other).write_text("no image")
    with pytest.raises(UserError, match=r"no image found, expected files ending in .*\.jpg") as e:
        open_folder(tmp_path)
    assert "\n" not in str(e.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match="no image found"):
        open_folder(tmp_path / "nowhere")


def test_fingerprint_follows_the_files(tmp_path):
    path = put(tmp_path / "a.png")
    prints = [open_folder(tmp_path).fingerprint]
    assert open_folder(tmp_path).fingerprint == prints[0]
    os.utime(path, ns=(1, 1))
    prints.append(open_folder(tmp_path).fingerprint)
    put(tmp_path / "b.png")
    prints.append(open_folder(tmp_path).fingerprint)
    path.rename(tmp_path / "c.png")
    prints.append(open_folder(tmp_path).fingerprint)
    assert len(set(prints)) == 4
