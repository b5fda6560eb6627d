"""A folder of images: all of them, at any depth, and nothing else."""

import os

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.folder import open_folder


def test_recursive_sorted_and_by_suffix(tmp_path, picture):
    for name in ("b.jpg", "a/z.PNG", "a/deep/er/c.webp", "a.bmp"):
        picture(name, (6, 5), (200, 10, 10))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    data = open_folder(tmp_path)
    assert [s.name for s in data.samples] == ["a/deep/er/c.webp", "a/z.PNG", "a.bmp", "b.jpg"]
    assert data.name == tmp_path.name and data.landmark_names == ()
    for sample in data.samples:
        assert sample.points.shape == (0, 2) and sample.split == ""
        assert np.abs(sample.read().astype(int) - (200, 10, 10)).max() < 10


def test_no_image_says_what_was_expected(tmp_path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some/notes.txt").write_text("no image")
    for folder in ("some", "nowhere"):
        with pytest.raises(UserError, match=r"no image found, expected files ending in .*\.jpg"):
            open_folder(tmp_path / folder)


def test_fingerprint_follows_the_files(tmp_path, picture):
    path = picture("a.png")
    prints = [open_folder(tmp_path).fingerprint]
    assert open_folder(tmp_path).fingerprint == prints[0]
    os.utime(path, ns=(1, 1))
    prints.append(open_folder(tmp_path).fingerprint)
    picture("b.png")
    prints.append(open_folder(tmp_path).fingerprint)
    path.rename(tmp_path / "c.png")
    prints.append(open_folder(tmp_path).fingerprint)
    assert len(set(prints)) == 4


def test_pages_of_a_stack_are_images(tmp_path, picture):
    first, *rest = (Image.new("L", (6, 5), 50 * page) for page in range(4))
    first.save(tmp_path / "b.tif", save_all=True, append_images=rest)
    picture("a.png")
    data = open_folder(tmp_path)
    assert [each.name for each in data.samples] == ["a.png", *(f"b.tif#{n}" for n in range(4))]
    assert [int(each.read()[0, 0, 0]) for each in data.samples[1:]] == [0, 50, 100, 150]


def test_what_is_not_read_is_told(tmp_path, picture):
    picture("a.png")
    (tmp_path / "b.nef").write_bytes(b"x" * 99)
    (tmp_path / "notes.txt").write_text("x")
    assert open_folder(tmp_path).problems == (f"not read: 1 .nef, first {tmp_path / 'b.nef'}",)


def test_linked_folders_once_and_names_that_are_no_text(tmp_path, picture):
    picture("in/" + os.fsdecode(b"\xff.png"))
    picture("beside/b.png")
    for name in ("x", "y"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "beside")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    data = open_folder(tmp_path / "in")
    assert [each.name for each in data.samples] == ["x/b.png", r"\xff.png"]
    assert all(each.read().shape == (10, 12, 3) for each in data.samples)
