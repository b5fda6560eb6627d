"""Paths -> frames, and one line for every path of which nothing comes."""

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.sources import open_source


def _save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)


def test_single_image(tmp_path):
    _save(tmp_path / "a.png", 7)
    with open_source(tmp_path / "a.png") as source:
        (frame,) = source
    assert (frame.source, frame.index, frame.time_s) == ("a.png", 0, 0.0)
    assert frame.image.shape == (6, 8, 3) and (frame.image == 7).all()
    assert source.num_frames == 1 and source.frame_rate is None and source.skipped == []


def test_folder_is_recursive_sorted_and_skips_the_unreadable(tmp_path):
    _save(tmp_path / "b" / "2.PNG", 2)
    _save(tmp_path / "a.jpg", 1)
    _save(tmp_path / "b" / "3.png", 3)
    (tmp_path / "b" / "1.png").write_bytes(b"not an image")
    (tmp_path / "b" / "._2.png").write_bytes(b"left by macOS")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(tmp_path)
    frames = list(source)
    assert [frame.source for frame in frames] == ["a.jpg", "b/2.PNG", "b/3.png"]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert source.num_frames == 4
    assert len(source.skipped) == 1 and "1.png: cannot be read" in source.skipped[0]


def test_missing_path(tmp_path):
    with pytest.raises(UserError, match="gone.mp4: got no such file or folder"):
        open_source(tmp_path / "gone.mp4")


def test_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"without images, expected files ending in .*\.png"):
        open_source(tmp_path)


def test_folder_of_which_nothing_can_be_read(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match="got 2 images none of which can be read"):
        list(open_source(tmp_path))


def test_single_unreadable_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="a.png: cannot be read as an image"):
        list(open_source(tmp_path / "a.png"))


def test_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"got suffix '.docx', expected an image .*\.mp4"):
        open_source(tmp_path / "a.docx")
