"""Any picture of a film or folder by its number, small ones made once; a gallery of them all."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.studio import pictures
from lmk.studio.pictures import Film, Images
from lmk.studio.project import Project

COUNT = 54


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture
def film(tmp_path):
    """A film whose frames are as bright as their numbers, with few key frames."""
    with av.open(str(tmp_path / "grey.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4", "g": "40"})
        stream.width, stream.height = 128, 64
        for number in range(COUNT):
            image = np.full((64, 128, 3), 30 + 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return tmp_path / "grey.mp4"


def test_frames_come_by_their_numbers_in_any_order(film, started):
    shown = Film(film)
    order = [0, 1, 2, 52, 51, 50, 45, 30, 29, 28, 5, 53, *range(50, 0, -3)]
    for number in order:
        small = pixels(shown.jpeg(number, 64))
        assert small.shape == (32, 64, 3)
        assert abs(small.mean() - (30 + 4 * number)) < 2.5, number
        assert abs(shown.image(number).astype(int).mean() - (30 + 4 * number)) < 2.5
    assert pixels(shown.jpeg(3, 4000)).shape == (64, 128, 3)  # never larger than it is
    with pytest.raises(UserError, match="got frame 54, expected 0 to 53"):
        shown.jpeg(COUNT, 64)


def test_all_thumbnails_are_read_in_the_order_of_the_film(film, monkeypatch):
    shown, passed, gate = Film(film), [], threading.Event()
    read = pictures._Reader.read

    def slowly(reader, number, *limits):
        passed.append(number)
        gate.wait(60)
        return read(reader, number, *limits)

    monkeypatch.setattr(pictures._Reader, "read", slowly)
    wanted = (20, 50, 3, 40, 51, 9)
    with ThreadPoolExecutor(len(wanted)) as threads:
        first = threads.submit(shown.small, wanted[0])
        while not passed:
            time.sleep(0.01)
        others = [threads.submit(shown.small, number) for number in wanted[1:]]
        while len(shown._wanted) < len(wanted):
            time.sleep(0.01)
        gate.set()
        made = [future.result() for future in (first, *others)]
    assert passed == [20, 40, 50, 51, 3, 9]
    for number, data in zip(wanted, made, strict=True):
        assert abs(pixels(data).mean() - (30 + 4 * number)) < 2.5
    with pytest.raises(UserError, match="expected 0 to 53"):
        shown.small(COUNT)
    assert len(pixels(shown.small(7)))  # one that cannot be had is in nobody's way


def test_pictures_are_kept_up_to_a_limit(film, monkeypatch):
    monkeypatch.setattr(pictures, "_JPEGS_BYTES", 10_000)
    shown = Film(film)
    for number in (*range(COUNT), *range(COUNT - 1, -1, -1)):
        shown.jpeg(number, 64)
        assert shown._bytes == sum(map(len, shown._jpegs.values())) <= 10_000


def test_a_thumbnail_is_made_once_and_upright(tmp_path, monkeypatch):
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    image = np.zeros((600, 1200, 3), np.uint8)
    image[:, :600] = 255
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(image[:100, :80]).save(tmp_path / "small.png")
    shown = Images(tmp_path, [tmp_path / "turned.jpg", tmp_path / "small.png"])
    small = pixels(shown.thumbnail(0))
    assert small.shape == (480, 240, 3) and small[:200].mean() > 250 and small[-200:].mean() < 5
    assert pixels(shown.thumbnail(1)).shape == (100, 80, 3)
    monkeypatch.setattr(shown, "small", None)  # else an error: it is there
    assert (pixels(shown.thumbnail(0)) == small).all()


def test_what_was_opened_is_there_once(tmp_path, film, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    sources = Project([".", str(film), "grey.mp4", "a.png"]).sources
    assert [(s.path.name, s.is_film, len(s.numbers)) for s in sources.values()][1:] == [
        ("grey.mp4", True, 0), ("grey.mp4", True, 0), ("a.png", False, 1)
    ]  # fmt: skip
    with pytest.raises(UserError, match="got a pattern of images, expected their folder"):
        _ = Project(["*.png"]).sources


def test_a_gallery_shows_what_is_in_sight(page, studio, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(400):
        Image.new("RGB", (16, 12), (number % 256, 90, 90)).save(folder / f"{number:04}.jpg")
    running = studio(folder, "faces")
    page.enter(running, "/name?source=many&number=300")
    page.press("g")
    page.until("return !!document.querySelector('.gallery [data-n=\"300\"][aria-current]')")
    loaded = "return [...document.querySelectorAll('.gallery img')].every(i => i.naturalWidth > 0)"
    page.until(loaded)
    assert page.js("return document.querySelectorAll('.gallery button').length") < 150
    page.js("document.querySelector('.gallery').scrollTop = 0")
    page.until("return !!document.querySelector('.gallery [data-n=\"7\"]')")
    page.until(loaded)
    assert not page.js("return document.querySelector('.gallery [data-n=\"300\"]')")
    page.click(".gallery [data-n='7']")
    page.until("return document.documentElement.dataset.number === '7'")
