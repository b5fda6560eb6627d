"""Watch: a film with its results -> its worst moments, and corrections that join the table."""

import csv
import shutil

import numpy as np
import pytest

from lmk.studio.watch import Results, moments

NAMES = ("left eye", "right eye", "mouth")
COUNT, BAD, DOUBLE = 40, 23, 30


@pytest.fixture
def film(tmp_path, drawn, named):
    """A film of one face that does not move, found well but in two frames; a named pack."""
    import av

    image, points = drawn.face(3)
    with av.open(str(tmp_path / "face.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "fast"})
        stream.width = stream.height = drawn.SIDE
        for _ in range(COUNT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    folder = tmp_path / "runs" / "face-faces-named"
    folder.mkdir(parents=True)
    with (folder / "landmarks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = [f"{name}_{what}" for name in NAMES for what in ("x", "y", "score")]
        boxes = ["box_x", "box_y", "box_w", "box_h"]
        writer.writerow(["source", "frame", "time_s", "track", *boxes, *columns])
        for number in range(COUNT):
            found = points + (40 if number == BAD else 0) * np.array([[0, 0], [0, 0], [1, 0]])
            if number == DOUBLE:  # one eye is found where the other is
                found[1] = found[0]
            score = 0.2 if number == BAD else 0.9
            cells = [value for point in found for value in (*point, score)]
            writer.writerow(["face.mp4", number, number / 10, 0, 0, 0, 192, 192, *cells])
    shutil.copy(named[0], tmp_path / "runs" / "faces-named.safetensors")
    shutil.copytree(named[1].parent, tmp_path / "runs" / "faces-points")
    return tmp_path / "face.mp4", points


def test_the_worst_moment_is_a_key_away_and_is_corrected(page, studio, film, drawn, tmp_path):
    path, points = film
    running = studio(path)
    page.enter(running, "/watch")
    assert page.js("return document.documentElement.dataset.rows") == str(COUNT)
    page.press("n")
    page.until("return document.documentElement.dataset.frame === arguments[0]", str(BAD))
    assert "low score" in page.text(f".points li[data-frame='{BAD}']")
    page.driver.back()
    page.until("return document.documentElement.dataset.frame === '0'")
    page.driver.forward()
    page.until("return document.documentElement.dataset.frame === arguments[0]", str(BAD))
    wrong, right = points[2] + (40, 0), points[2]
    side = drawn.SIDE
    page.drag(page.at(*wrong, side, side), page.at(*right, side, side))
    page.until("return document.getElementById('corrected')?.textContent === '1 corrected'")
    table = tmp_path / "runs" / "faces-points" / "annotations.csv"
    with table.open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert row["file"] == f"face_{BAD:06}.png" and row["left eye_x"] == ""
    assert np.hypot(float(row["mouth_x"]) - right[0], float(row["mouth_y"]) - right[1]) < 1.5
    assert (table.parent / row["file"]).exists()
    page.press("u")
    page.until("return document.getElementById('corrected')?.textContent === '0 corrected'")
    with table.open(newline="") as file:
        assert all(
            row["file"] != f"face_{BAD:06}.png" or row["mouth_x"] == ""
            for row in csv.DictReader(file)
        )
    page.drag(page.at(*wrong, side, side), page.at(*right, side, side))
    page.until("return document.getElementById('corrected')?.textContent === '1 corrected'")
    assert page.find("#again").is_enabled()
    page.press("\ue014", "\ue014", "\ue012")  # right, right, left
    page.until("return document.documentElement.dataset.frame === arguments[0]", str(BAD + 1))
    page.driver.refresh()  # the address says where we were
    page.until("return document.documentElement.dataset.ready === 'yes'")
    assert page.js("return document.documentElement.dataset.frame") == str(BAD + 1)
    assert page.text("#corrected") == "1 corrected"  # and what was corrected is shown as it was set
    now = running.ask("/api/watch/face-faces-named")["corrected"]
    assert list(now) == [str(BAD)] and list(now[str(BAD)]["0"]) == ["mouth"]
    assert np.hypot(*(now[str(BAD)]["0"]["mouth"] - right)) < 1.5

    page.open(f"{running.root}/watch?frame={DOUBLE}")
    page.until("return document.documentElement.dataset.ready === 'yes'")
    page.press("]", "]")  # the second of two that lie over each other
    page.drag(page.at(*points[0], side, side), page.at(*points[1], side, side))
    page.until("return document.getElementById('corrected')?.textContent === '2 corrected'")
    with table.open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert row["file"] == f"face_{DOUBLE:06}.png" and row["left eye_x"] == ""
    assert abs(float(row["right eye_x"]) - points[1][0]) < 1.5
    given = page.js("return fetch(document.getElementById('download').href).then(a => a.text())")
    assert given == (tmp_path / "runs" / "face-faces-named" / "landmarks.csv").read_bytes().decode()


def results(points, scores=0.9, tracks=None):
    points = np.asarray(points, float)
    frames = np.tile(np.arange(len(points) // (tracks or 1)), tracks or 1)
    track = np.repeat(np.arange(tracks or 1), len(frames) // (tracks or 1))
    each = np.concatenate([points, np.full((*points.shape[:2], 1), scores)], axis=2)
    boxes = np.tile([0.0, 0, 100, 100], (len(points), 1))
    names = tuple("abcdefgh"[: points.shape[1]])
    return Results(names, "v", frames.astype(np.int32), track.astype(np.int32), boxes, each)


def test_what_moves_with_all_the_others_is_no_jump():
    base = np.array([[10, 10], [20, 10], [30, 10]])
    together = np.stack([base + 20 * (number == 5) for number in range(20)])
    assert not list(moments(results(together)))
    alone = np.stack([base + [[0, 0], [0, 0], [30 * (number == 5), 0]] for number in range(20)])
    (found,) = moments(results(alone))
    assert (found["kind"], found["frame"], found["name"]) == ("jump", 5, "c")


def test_objects_that_change_their_numbers_are_told():
    left, right = np.array([[10.0, 10]]), np.array([[80.0, 10]])
    one = [right if number >= 7 else left for number in range(12)]
    other = [left if number >= 7 else right for number in range(12)]
    found = list(moments(results(np.stack(one + other), tracks=2)))
    assert ("swap", 7) in {(moment["kind"], moment["frame"]) for moment in found}
