"""Paths -> frames, and one line for every path of which nothing comes."""

import os

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


@pytest.mark.parametrize(
    ("files", "spec", "told"),
    [
        ("", "gone.mp4", "gone.mp4: got no such file or folder"),
        ("", ".", r"without images, expected files ending in .*\.png"),
        ("a.png b.jpg", ".", "got 2 images none of which can be read"),
        ("a.png", "a.png", "a.png: cannot be read as an image"),
        ("a.docx", "a.docx", r"cannot be opened as a video .*an image \(.*\.png"),
        ("a.txt", "*", r"\*: got a pattern that no image matches"),
    ],
)
def test_paths_of_which_nothing_comes(tmp_path, files, spec, told):
    for name in files.split():
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=told):
        list(open_source(tmp_path / spec))


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


def _pages(path, count=5, **how):
    first, *rest = (Image.new("RGB", (8, 6), (40 * n, 0, 0)) for n in range(count))
    path.parent.mkdir(exist_ok=True)
    first.save(path, save_all=True, append_images=rest, **how)
    return path


@pytest.mark.parametrize(
    ("name", "how", "step"),
    [
        ("a.gif", {"duration": 80}, 0.08),
        ("a.webp", {"duration": 70, "lossless": True}, 0.07),
        ("a.png", {"duration": 50}, 0.05),
        ("a.tif", {}, 0.04),
    ],
)
def test_a_file_of_several_pictures_is_a_film(tmp_path, name, how, step):
    with open_source(_pages(tmp_path / name, **how)) as source:
        assert source.num_frames == 5 and source.size == (6, 8) and source.name == "a"
        assert float(source.frame_rate) == pytest.approx(1 / step)
        frames = list(source)
    assert [(f.source, f.index) for f in frames] == [(name, n) for n in range(5)]
    assert [f.time_s for f in frames] == pytest.approx([n * step for n in range(5)])
    for number, frame in enumerate(frames):
        assert np.abs(frame.image[..., 0].astype(int) - 40 * number).max() < 3
    with open_source(tmp_path / name) as source:
        source.resume_after(2)
        assert [f.index for f in source] == [3, 4]


def test_a_damaged_page_costs_that_page(tmp_path):
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    first, *rest = map(Image.fromarray, noise)
    first.save(path, save_all=True, append_images=rest, compression="tiff_adobe_deflate")
    data = path.read_bytes()
    places = [i for i in range(len(data)) if data[i : i + 2] == b"\x78\x9c"]
    path.write_bytes(data[: places[1]] + bytes(60) + data[places[1] + 60 :])
    with open_source(path) as source:
        assert [frame.index for frame in source] == [0, 2, 3]
        assert "picture 2 of" in source.skipped[0]


def test_folder_names_what_it_does_not_read(tmp_path, caplog):
    caplog.set_level("INFO")
    _save(tmp_path / "a.png", 1)
    for name in ("b.nef", "c.NEF", "d.xcf", "notes.txt", "readme"):
        (tmp_path / name).write_bytes(b"x" * 300)
    with open_source(tmp_path) as source:
        assert [frame.source for frame in source] == ["a.png"]
        assert source.skipped == [f"not read: 2 .nef, 1 .xcf, first {tmp_path / 'b.nef'}"]
    assert "1 .txt, 1 without a suffix" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"without images \(not read: 2 .nef"):
        open_source(tmp_path)


def test_expand_takes_stacks_and_films_of_any_name(tmp_path, write_video):
    stack = _pages(tmp_path / "stack.tif")
    film = write_video(tmp_path / "v.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3)
    film = film.rename(tmp_path / "v.anything")
    (tmp_path / "x.anything").write_bytes(b"no film")
    assert expand([str(tmp_path)]) == [str(stack), str(film)]
    assert expand([str(tmp_path / "*")]) == [str(stack), str(film)]
    with open_source(film) as source:
        assert len(list(source)) == 3


def test_what_runs_wrote_is_left_out_unless_it_is_named(tmp_path, monkeypatch, caplog, write_video):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "overlay/theirs.png", "o/overlay/a.png", "o/b.png", "runs/cats/p.png"):
        _save(tmp_path / name, 1)
    write_video(tmp_path / "o" / "overlay.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3)
    (tmp_path / "o" / ".lmk.json").write_text("{}")
    for spec in (".", "**/*.png"):
        with open_source(spec) as source:
            names = [frame.source for frame in source]
        assert names == ["a.png", "o/b.png", "overlay/theirs.png"] and source.skipped == []
    assert expand([".", "o", "o/*", "*"]) == [".", "o", "o/*", "*", "overlay"]
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (
        ".: left out, results of earlier runs: 2 .png, 1 .mp4, first o/overlay/a.png"
    )
    for spec in ("o/overlay", "o/overlay/*.png", "runs/cats"):  # named
        with open_source(spec) as source:
            assert len(list(source)) == 1
    (tmp_path / "o" / ".lmk.json").rename(tmp_path / ".o.partial")  # killed at the very end
    assert len(open_source(".").paths) == 3
    (tmp_path / "o" / "b.png").unlink()
    with pytest.raises(
        UserError, match=r"without images \(left out, results of .*: 1 .png, 1 .mp4"
    ):
        open_source("o")


def test_links_are_followed_once_and_end(tmp_path):
    _save(tmp_path / "in" / "a.png", 1)
    _save(tmp_path / "beside" / "b.png", 2)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "beside")
    for spec in (tmp_path / "in", tmp_path / "in" / "**" / "*.png"):
        with open_source(spec) as source:
            assert [frame.source for frame in source] == ["a.png", "linked/b.png"]


def test_pattern_that_leads_out_is_refused(tmp_path):
    _save(tmp_path / "a" / "1.png", 1)
    for pattern in ("*/../a/1.png", "**/../*.png"):
        with pytest.raises(UserError, match=r"got '\.\.' behind a wildcard"):
            open_source(tmp_path / pattern)


def test_names_that_are_no_text(tmp_path):
    _save(tmp_path / os.fsdecode(b"a\xff\x1b[2J.png"), 1)
    _save(tmp_path / "b.png", 1)
    with open_source(tmp_path) as source:
        assert [frame.source for frame in source] == [r"a\xff\x1b[2J.png", "b.png"]
