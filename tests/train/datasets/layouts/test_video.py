"""Films as training data: chosen frames, in the boxes of their objects."""

import logging

import av
import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.find import find_in_film
from lmk.runtime.regions import Finding
from lmk.train.datasets import FilmOptions, category_name, load_decoded, open_dataset
from lmk.train.datasets.decoded import CONTEXT, object_box

COUNT, LEFT = 12, 4  # frames of a film; pixels that its square goes right in each


def write(path, pictures):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def put(path, count=COUNT):
    """A film, 96×64, of a bright square, 16×16, that goes right and slowly out."""
    pictures = [np.full((64, 96, 3), 40, np.uint8) for _ in range(count)]
    for number, picture in enumerate(pictures):
        picture[20:36, 10 + LEFT * number :][:, :16] = 220 - 6 * number
    return write(path, pictures)


def roam(path, count=60):
    """A film, 240×180, of a dark ellipse that goes round head first; its headings, radians."""
    y, x = np.mgrid[:180, :240] + 0.5
    turns = 0.07 * np.arange(count)
    headings = np.arctan2(55 * np.cos(turns), -80 * np.sin(turns))
    pictures = []
    for turn, heading in zip(turns, headings, strict=True):
        right, down = x - 120 - 80 * np.cos(turn), y - 90 - 55 * np.sin(turn)
        along = right * np.cos(heading) + down * np.sin(heading)
        across = down * np.cos(heading) - right * np.sin(heading)
        inside = (along / 18) ** 2 + (across / 8) ** 2 <= 1
        pictures.append(np.where(inside[..., None], np.uint8(30), np.uint8(150)).repeat(3, 2))
    write(path, pictures)
    return headings


def left_edge(image):
    return int(np.argmax(image[28, :, 0] > 130))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def kept(here):
    """Returns the file in which the choice of frames is kept."""
    return lambda: next((here / "cache/frames").iterdir())


def test_frames_of_one_film(here, caplog):
    data = open_dataset(str(put(here / "walk.mp4")))
    assert [each.name for each in data.samples] == [f"walk.mp4#{n}" for n in range(COUNT)]
    for number in (0, 5, 6, 2, 11):  # in any order
        assert left_edge(data.samples[number].read()) == 10 + LEFT * number
    assert all(each.track is None and each.box is None for each in data.samples)
    assert "whole frames are learnt from; `lmk find" in caplog.text
    few = open_dataset("walk.mp4", films=FilmOptions(frames=4))
    assert 1 < len(few.samples) <= 4 and few.fingerprint != data.fingerprint


def test_a_pattern(here):
    for name in ("b.mp4", "a.mp4", "c.avi"):
        put(here / "films" / name)
    data = open_dataset("films/*.mp4")
    assert [each.name for each in data.samples[::COUNT]] == ["a.mp4#0", "b.mp4#0"]
    assert data.name == category_name("films/*.mp4") == "films"
    with pytest.raises(UserError, match=r"films/\*\.mkv"):
        open_dataset("films/*.mkv")


def test_a_folder_of_films_and_images(here):
    put(here / "zoo/deep/walk.mp4")
    put(here / "zoo/run.mp4", count=9)
    Image.new("RGB", (9, 9)).save(here / "zoo/photo.png")
    (here / "zoo/broken.mp4").write_bytes(b"no film")
    data = open_dataset("zoo", films=FilmOptions(frames=12))
    names = [each.name for each in data.samples]
    for start in ("deep/walk.mp4#", "run.mp4#"):  # a third of the budget each
        assert 1 < sum(name.startswith(start) for name in names) <= 4
    assert names[-1] == "photo.png" and data.samples[-1].read().shape == (9, 9, 3)
    (problem,) = data.problems
    assert problem.startswith("films that cannot be used") and "broken.mp4" in problem


def test_two_objects_in_a_frame(here, caplog):
    put(here / "walk.mp4")
    (here / "runs").mkdir()
    rows = [f"{n},{t},{10 + LEFT * n},{y},16,16" for n in (2, 9) for t, y in ((1, 20), (2, 44))]
    (here / "runs/walk-boxes.csv").write_text("\n".join(["frame,track,x,y,w,h", *rows]))
    data = open_dataset("walk.mp4")
    assert [each.name for each in data.samples[::2]] == [f"walk.mp4#{n}" for n in range(2, 10)]
    assert [each.track for each in data.samples] == [1, 2] * 8
    assert data.samples[2].box == (10 + 3 * LEFT, 20, 16, 16)
    frame = data.samples[2].read()
    assert object_box(data.samples[2], frame, "image") == (data.samples[2].box, 1.0)
    assert "learnt from in the boxes of runs/walk-boxes.csv" in caplog.text
    bright = load_decoded("walk.mp4", None, 64).images[:, 40, 40, 0]
    assert (bright[::2] > 130).all() and (bright[1::2] < 60).all()
    assert load_decoded("walk.mp4", None, 64).away is None  # square boxes say no more
    (here / "none.csv").write_text("frame,x,y,w,h,source\n0,1,1,9,9,other.mp4\n")
    with pytest.raises(UserError, match=r"got no box in none\.csv for any of 12 frames"):
        open_dataset(
            "walk.mp4", films=FilmOptions(boxes=here.joinpath("none.csv").relative_to(here))
        )


def test_what_is_beside_a_narrow_box_is_beside_the_object(here):
    put(here / "walk.mp4")
    (here / "runs").mkdir()
    boxes = here / "runs/walk-boxes.csv"
    boxes.write_text("frame,x,y,w,h\n2,8,4,16,48\n9,8,4,48,48\n")
    data = load_decoded("walk.mp4", None, 64)
    beside, middle, scale = data.away[0].astype(float), 64 * CONTEXT / 2, 64 / 48
    assert (beside[20:60, 40] == 0).all() and beside[40, :20].min() > 0
    assert beside[40, 1] == pytest.approx(middle - 8 * scale - 1.5, abs=1)
    square = boxes.read_text().replace("16,48", "48,48")
    boxes.write_text(square)
    assert load_decoded("walk.mp4", None, 64).away is None


def test_of_what_was_seen_to_move_the_object_is_known(here):
    """Which pixels are its own, where it heads, and when each frame was."""
    headings = roam(here / "walk.mkv")
    (here / "runs").mkdir()
    find_in_film("walk.mkv", here / "runs/walk-boxes.csv", here / "runs/found.png")
    data = load_decoded("walk.mkv", None, 64)
    assert data.finding == Finding("motion") and data.films[-1][:2] == ("walk.mkv", 0)
    numbers = [int(name.partition("#")[2]) for name in data.names]
    assert [film[2] for film in data.films] == pytest.approx([n / 25 for n in numbers])
    apart = data.headings - headings[numbers]
    assert np.abs(np.angle(np.exp(1j * apart)))[20:].max() < 0.3  # once it is known which way
    on = data.away == 0
    dark = data.images.mean(axis=3) < 60
    assert (on & dark).sum() > 0.9 * dark.sum() and (on & ~dark).sum() < 0.35 * dark.sum()
    held_out = [n for n, split in zip(numbers, data.splits, strict=True) if split == "val"]
    assert 0.05 < len(held_out) / len(numbers) < 0.15
    gaps = np.diff(held_out) > np.diff(numbers).max()
    assert gaps.sum() <= 2  # blocks of time: their neighbours are not learnt from


def test_the_choice_is_kept_and_a_changed_film_makes_a_new_one(here, kept, caplog):
    put(here / "walk.mp4")
    first = open_dataset("walk.mp4")
    written = kept().stat().st_mtime_ns
    again = open_dataset("walk.mp4")
    assert again.fingerprint == first.fingerprint and kept().stat().st_mtime_ns == written
    caplog.clear()
    put(here / "walk.mp4", count=7)
    other = open_dataset("walk.mp4")
    assert "walk.mp4: it has changed; its frames are chosen anew" in caplog.text
    assert len(other.samples) == 7 and other.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: text.replace('"where": [[0', '"where": [[null'),
        lambda text: text.replace('"where": [[0', '"where": [[99999'),
        lambda text: text.replace("null, null, null]", 'null, "box", null]'),
    ],
)
def test_a_damaged_choice(here, kept, caplog, damage):
    put(here / "walk.mp4")
    before = open_dataset("walk.mp4")
    whole = kept().read_text()
    kept().write_text(damage(whole))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        after = open_dataset("walk.mp4")
    assert "is damaged" in caplog.text and after.fingerprint == before.fingerprint
    assert kept().read_text() == whole


def test_films_that_cannot_be_used(here):
    (here / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"broken\.mp4"):
        open_dataset("broken.mp4")
    with pytest.raises(UserError, match=r"--data gone\.mp4: got no such file"):
        open_dataset("gone.mp4")
    whole = put(here / "walk.mp4").read_bytes()
    start = whole.index(b"mdat") + 4
    end = max(whole.find(b"moov") - 4, start + 200)
    (here / "walk.mp4").write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    with pytest.raises(UserError, match=r"walk\.mp4.*no frame"):
        open_dataset("walk.mp4")


def test_options_that_do_not_fit(here):
    Image.new("RGB", (9, 9)).save(here / "photo.png")
    with pytest.raises(UserError, match="--boxes: got b.csv for .* without films"):
        open_dataset(str(here), films=FilmOptions(boxes=here.joinpath("b.csv").relative_to(here)))
    put(here / "walk.mp4")
    with pytest.raises(UserError, match=r"--layout lsp: got walk\.mp4, expected a folder"):
        open_dataset("walk.mp4", "lsp")
    assert category_name("some/walk.mp4") == "walk"
