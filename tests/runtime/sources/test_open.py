"""Paths -> frames, and one line for every path of which nothing comes."""

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.sources.open import expand, open_source


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
    assert [frame.index for frame in frames] == [0, 2, 3]  # b/1.png leaves a gap
    assert source.num_frames == 4 and source.name == tmp_path.name and not source.is_live
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


def test_pattern_of_images_is_one_source(tmp_path):
    for name in ("shots/b/2.png", "shots/a/1.png", "shots/a/3.png"):
        _save(tmp_path / name, 1)
    (tmp_path / "shots" / "a" / "notes.png.txt").write_text("no image")
    with open_source(tmp_path / "shots" / "*" / "*") as source:
        assert [frame.source for frame in source] == ["a/1.png", "a/3.png", "b/2.png"]
        assert source.name == "shots" and source.path == tmp_path / "shots"
    with open_source(tmp_path / "**" / "[12].png") as source:
        assert [frame.source for frame in source] == ["shots/a/1.png", "shots/b/2.png"]


def test_file_that_looks_like_a_pattern(tmp_path):
    _save(tmp_path / "a[1].png", 1)
    with open_source(tmp_path / "a[1].png") as source:
        assert [frame.source for frame in source] == ["a[1].png"]
    assert expand([str(tmp_path / "a[1].png")]) == [str(tmp_path / "a[1].png")]


def test_pattern_without_an_image(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"\*: got a pattern that no image matches"):
        open_source(tmp_path / "*")


def test_images_are_resumed_where_they_were_left(tmp_path):
    for number in range(5):
        _save(tmp_path / f"{number}.png", number)
    (tmp_path / "1.png").write_bytes(b"nothing")
    for index, rest in ((-1, [0, 2, 3, 4]), (0, [2, 3, 4]), (2, [3, 4]), (4, [])):
        source = open_source(tmp_path)
        source.resume_after(index)
        assert [frame.index for frame in source] == rest


def test_resumed_images_may_all_be_unreadable(tmp_path):
    _save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"nothing")
    source = open_source(tmp_path)
    source.resume_after(0)
    assert list(source) == [] and len(source.skipped) == 1


def test_expand_keeps_the_order_and_drops_what_comes_twice(tmp_path):
    for name in ("b.mp4", "a.mp4", "z.txt"):
        (tmp_path / name).write_bytes(b"x")
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")
    assert expand([b, str(tmp_path / "*"), "0", "rtsp://host/*"]) == [b, a, "0", "rtsp://host/*"]


def test_expand_leaves_a_pattern_of_images_whole(tmp_path):
    _save(tmp_path / "1.png", 1)
    _save(tmp_path / "2.png", 1)
    (tmp_path / "a.mp4").write_bytes(b"x")
    pattern = str(tmp_path / "*")
    assert expand([pattern]) == [pattern, str(tmp_path / "a.mp4")]


def test_expand_folder_of_videos(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.mkv", "deep/._a.mkv"):
        (tmp_path / name).write_bytes(b"x")
    videos = [str(tmp_path / "b.mp4"), str(tmp_path / "deep" / "a.mkv")]
    assert expand([str(tmp_path)]) == videos
    assert expand([str(tmp_path / "**")]) == videos
    _save(tmp_path / "c.png", 1)
    assert expand([str(tmp_path)]) == [str(tmp_path), *videos]


def test_expand_pattern_without_a_match(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"\*\.mp4: got a pattern that no image, video or folder"):
        expand([str(tmp_path / "*.mp4")])
    with pytest.raises(UserError, match="got a pattern that no"):
        expand([str(tmp_path / "*")])
