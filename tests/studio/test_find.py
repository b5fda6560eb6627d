"""Find and Learn: boxes that are drawn -> the table of `lmk find`; what is learnt is seen."""

import csv
import json
import time
import urllib.error

import pytest

SAVED = "return document.getElementById('state').textContent === 'Saved'"


@pytest.fixture
def film(tmp_path, drawn):
    drawn.film(tmp_path / "faces.mp4", 24)
    return tmp_path / "faces.mp4"


def rows(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "heading"} for row in csv.DictReader(file)]


def test_boxes_are_drawn_moved_and_removed(page, studio, film, drawn, tmp_path):
    running = studio(film)
    page.enter(running, "/find")
    side = drawn.SIDE
    table = tmp_path / "runs" / "faces-boxes.csv"

    page.drag(page.at(29.5, 19.5, side, side), page.at(149.5, 159.5, side, side))
    page.until(SAVED)
    (row,) = rows(table)
    assert (row["source"], row["frame"], row["track"]) == ("faces.mp4", "0", "0")
    box = [float(row[name]) for name in "xywh"]
    assert all(abs(a - b) < 1 for a, b in zip(box, (30, 20, 120, 140), strict=True))

    page.js("document.getElementById('state').textContent = ''")
    page.drag(page.at(149.5, 159.5, side, side), page.at(169.5, 169.5, side, side))  # its corner
    page.until(SAVED)
    assert abs(float(rows(table)[0]["w"]) - 140) < 1

    last = [{"track": 0, "x": 40, "y": 20, "w": 120, "h": 140}]
    running.ask("/api/find/faces/23", "PUT", {"boxes": last, "before": []})
    page.press("\ue014")  # the next of the frames shown: between listed ones the box moves evenly
    page.until("return document.documentElement.dataset.frame === '2'")
    page.js("document.getElementById('state').textContent = ''")
    page.press("x")
    page.until(SAVED)
    found = [len(running.ask(f"/api/find/faces/{number}")["boxes"]) for number in (0, 1, 2, 3, 23)]
    assert found == [1, 1, 0, 1, 1]
    assert [(row["frame"], row["track"]) for row in rows(table)] == [
        ("0", "0"), ("1", "0"), ("3", "1"), ("23", "1")
    ]  # fmt: skip

    now = running.ask("/api/find/faces/0")["boxes"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        running.ask("/api/find/faces/0", "PUT", {"boxes": [], "before": [{**now[0], "w": 1}]})
    assert refused.value.code == 409 and json.load(refused.value)["now"] == now


def test_what_is_learnt_from_drawn_boxes_is_seen_and_ends(page, studio, film, drawn, tmp_path):
    running = studio(film)
    boxes = [{"track": 0, "x": 10, "y": 10, "w": 170, "h": 170}]
    for number in (0, 23):
        running.ask(f"/api/find/faces/{number}", "PUT", {"boxes": boxes, "before": []})
    page.enter(running, "/find")
    for label, value in (("Landmarks", "5"), ("Minutes", "0.03")):
        field = page.find(f"input[aria-label={label}]")
        field.clear()
        field.send_keys(value)
    page.click("#learn")
    page.until("return location.pathname === '/learn'")
    page.until("return !!document.querySelector('[data-run=faces]')")
    page.until("return !!document.querySelector('[data-job=done]')", seconds=580)
    page.until("return !!document.querySelector('[data-run=faces][data-state=finished] img')")
    assert (tmp_path / "runs" / "faces-landmarks" / "landmarks.csv").exists()
    assert (tmp_path / "runs" / "faces.onnx").exists()


def test_a_run_that_dies_is_told_and_no_foreign_process_is_stopped(studio, film, tmp_path):
    running = studio(film)
    folder = tmp_path / "runs" / "shoes"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"minutes": 20, "landmarks": 10}')
    (folder / "history.json").write_text('[{"step": 40, "seconds": 9}]')
    import os
    import socket

    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}
    (tmp_path / "runs" / ".shoes.safetensors.lock").write_text(json.dumps(owner))
    (run,) = running.ask("/api/learn")
    assert (run["name"], run["step"], run["alive"]) == ("shoes", 40, True)
    with pytest.raises(urllib.error.HTTPError) as refused:  # the lock is nobody's: it is left over
        running.ask("/api/learn/shoes/stop", "POST", {})
    assert refused.value.code == 400

    running.ask("/api/find/faces/learn", "POST", {"landmarks": 0, "minutes": 1})  # lmk refuses it
    end = time.monotonic() + 120
    while (job := _job(running))["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert job["state"] == "failed" and job["code"] == 2
    assert any("landmarks" in line for line in job["lines"])


def _job(running):
    """The latest, by the events: a whole state each time, whoever comes when."""
    import urllib.request

    port = running.root.rsplit(":", 1)[1]
    headers = {"Cookie": f"lmk-{port}={running.token}"}
    request = urllib.request.Request(running.root + "/api/events", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as events:
        for line in events:
            if line.startswith(b"data: "):
                return json.loads(line[6:])["jobs"][0]
    raise AssertionError("the events ended")
