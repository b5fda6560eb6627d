"""`lmk find`: a film -> boxes that can be given back, and a picture."""

import csv

import av
import pytest
from click.testing import CliRunner
from PIL import Image

from lmk.commands import cli
from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.find import find_in_film
from lmk.runtime.owner import Owned
from lmk.runtime.regions import Finding, finding_of, parse_roi


@pytest.fixture
def film(tmp_path, write_video, drawn):
    frames, places = drawn.one(60)
    path = write_video(tmp_path / "a film.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    return path, frames, places


def test_boxes_can_be_given_back(film, tmp_path):
    path, frames, places = film
    done = CliRunner().invoke(cli, ["find", str(path), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 object of about 3" in done.output and "object 0: in 100.0% of 60" in done.output
    boxes = tmp_path / "out" / "a film-boxes.csv"
    region = parse_roi(str(boxes))
    for n in range(0, 60, 7):
        [target] = region.targets(Frame("a film.mkv", n, 0.0, frames[n]))
        x, y, width, height = target.box
        assert abs(x + width / 2 - places[n][0]) < 2 and abs(y + height / 2 - places[n][1]) < 2
    assert finding_of(boxes) == Finding("motion")
    with boxes.open() as file:
        assert {"source", "track", "heading"} <= set(next(csv.DictReader(file)))
    with Image.open(tmp_path / "out" / "a film-found.png") as picture:
        assert picture.size[0] > 480
    again = CliRunner().invoke(cli, ["find", str(path), "--output", str(tmp_path / "out")])
    assert again.exit_code != 0 and "exists already" in str(again.exception)


def test_what_is_damaged_is_told(film, tmp_path, write_video):
    path = write_video(tmp_path / "cut.mp4", film[1], coding={"g": "12", "bf": "0"})
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0)]
    data, (start, size) = bytearray(path.read_bytes()), places[30]
    data[start + size // 2 : start + size] = b"\xff" * (size - size // 2)
    path.write_bytes(data)
    done = CliRunner().invoke(cli, ["find", str(path), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0 and f"skipped: {path}: 1 frame is damaged" in done.output


def test_boxes_have_one_owner_and_films_their_own(film, tmp_path):
    path, out = film[0], tmp_path / "out"
    words = ["find", str(path), "--output", str(out)]
    with Owned(out / "a film-boxes.csv"):
        busy = CliRunner().invoke(cli, [*words, "--force"])
    assert "is being written by process" in str(busy.exception) and not out.exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / path.name).symlink_to(path)
    both = CliRunner().invoke(cli, [*words, str(tmp_path / "b" / path.name)])
    assert "got films of one name" in str(both.exception) and not out.exists()


def test_a_doubtful_film_leaves_a_picture_and_no_boxes(tmp_path, write_video, drawn):
    frames = [drawn.frame(drawn.floor(), [], seed=n) for n in range(30)]
    path = write_video(tmp_path / "still.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    boxes, picture = tmp_path / "b.csv", tmp_path / "p.png"
    with pytest.raises(UserError, match="nothing that moves.*--find box"):
        find_in_film(path, boxes, picture)
    assert picture.exists() and not boxes.exists()
    with pytest.raises(UserError, match="no object in 30 frames"):
        find_in_film(path, boxes, picture, "motion")
    assert not boxes.exists()


def test_a_box_is_followed(film, tmp_path):
    path, _, places = film
    x, y = places[0][:2]
    boxes, picture = tmp_path / "b.csv", tmp_path / "p.png"
    found = find_in_film(path, boxes, picture, "box", f"{x - 20},{y - 20},40,40")
    assert found.frames == 60 and found.seen == {0: 60} and picture.exists()
    assert finding_of(boxes) == Finding("box")
    boxes.with_suffix(".json").write_text('{"way": "magic"}')
    with pytest.raises(UserError, match="b.json: 'finding': got .*magic.*lmk find"):
        finding_of(boxes)
    with boxes.open() as file:
        last = list(csv.DictReader(file))[-1]
    assert abs(float(last["x"]) + float(last["w"]) / 2 - places[-1][0]) < 12
    with pytest.raises(UserError, match="got box without a start"):
        find_in_film(path, boxes, picture, "box")
