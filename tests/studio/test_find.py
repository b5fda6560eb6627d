"""Find and Learn: boxes that are drawn -> the table of `lmk find`; what is learnt is seen."""

import csv
import json
import os
import signal
import socket
import urllib.error

import pytest
import torch

from lmk.train.network.checkpoint import save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork

SAVED = "return document.getElementById('state').textContent === 'Saved'"


@pytest.fixture
def small(tmp_path):
    """The newest core, of which a step takes a moment: 16 channels, 64-pixel crops."""
    torch.manual_seed(0)
    core = LandmarkNetwork(HourglassConfig(14, width=16, input_size=64)).eval()
    (tmp_path / "runs").mkdir()
    save_core(tmp_path / "runs" / "core.safetensors", core, {})


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


def test_what_is_learnt_from_drawn_boxes_is_seen_and_ends(page, studio, film, small, tmp_path):
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

    page.js("for (const button of document.querySelectorAll('[data-run=faces] button'))"
            " if (button.innerText === 'Learn longer') button.click()")  # fmt: skip
    page.js("document.querySelector('#more').value = 60")
    page.click("dialog button.main")
    page.until(
        "return !!document.querySelector('[data-run=faces][data-state=running]')", seconds=580
    )
    page.until(
        "return document.querySelector('[data-run=faces]').innerText.includes('60.03 minutes')"
    )
    page.js("scrollTo(0, 1e6)")
    edges = "return ['room', 'jobs'].map(id => document.getElementById(id).getBoundingClientRect())"
    room, jobs = page.js(edges)
    assert room["bottom"] <= jobs["top"] + 0.5 and jobs["height"] > 0  # they cover nothing
    page.click("[data-job=running] button[aria-label=Stop]")
    page.until(
        "return !!document.querySelector('[data-run=faces][data-state=stopped]')", seconds=580
    )
    assert " min" in page.text("[data-run=faces] button.main")  # go on: so much is left


def test_a_run_that_dies_is_told_and_gone_on_with(page, studio, film, small, tmp_path):
    running = studio(film)
    page.enter(running, "/learn")
    boxes = [{"track": 0, "x": 10, "y": 10, "w": 170, "h": 170}]
    running.ask("/api/find/faces/0", "PUT", {"boxes": boxes, "before": []})
    running.ask("/api/find/faces/learn", "POST", {"landmarks": 5, "minutes": 60})
    page.until("return !!document.querySelector('[data-run=faces][data-state=preparing]')")
    lock = tmp_path / "runs" / ".faces.safetensors.lock"
    running_ = "return !!document.querySelector('[data-run=faces][data-state=running]')"
    page.until(running_, seconds=580)
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
    page.until("return !!document.querySelector('[data-run=faces][data-state=died]')")
    assert "killed, as when memory runs out" in page.text("[data-run=faces]")
    page.until("return !!document.querySelector('[data-job=failed]')")
    assert "SIGKILL" in page.text("[data-job=failed]")

    page.open("about:blank")
    running.kill()
    page.enter(studio(film), "/learn")
    assert page.find("[data-run=faces]").get_attribute("data-state") == "died"
    page.click("[data-run=faces] button.main")  # goes on
    page.until("return !!document.querySelector('[data-run=faces]:not([data-state=died])')")
    page.click("[data-job=running] button[aria-label=Stop]")
    page.until("return !!document.querySelector('[data-job=stopped]')", seconds=580)


def test_a_command_that_fails_says_why_and_no_foreign_process_is_stopped(
    page, studio, film, tmp_path
):
    running = studio(film)
    folder = tmp_path / "runs" / "shoes"
    folder.mkdir(parents=True)
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": "now"}
    (tmp_path / "runs" / ".shoes.safetensors.lock").write_text(json.dumps(owner))
    (folder / "config.json").write_text('{"minutes": 20, "landmarks": 10}')
    (folder / "history.json").write_text('[{"step": 40, "seconds": 9}]')
    (run,) = running.ask("/api/learn")
    assert (run["name"], run["step"], run["alive"]) == ("shoes", 40, True)
    log = folder / "log.txt"
    says = "step {}/9000  pixel 0.1  2.5 images/s  {} s, {} s left\n"
    log.write_text(f"$ lmk adapt\n{says.format(80, 900, 0)}$ lmk adapt\n{says.format(60, 100, 50)}")
    (run,) = running.ask("/api/learn")
    assert (run["state"], run["step"]) == ("running", 60)
    assert 0 <= run["left"] <= 50 and 0.66 < run["share"] <= 1  # as the run says, less since then
    log.unlink()
    os.utime(folder / "config.json", (0, 0))  # of the run before
    (run,) = running.ask("/api/learn")
    assert (run["state"], run["step"], run["budget"]) == ("preparing", 0, "")
    with pytest.raises(urllib.error.HTTPError) as refused:  # the lock is nobody's: it is left over
        running.ask("/api/learn/shoes/stop", "POST", {})
    assert refused.value.code == 400

    page.enter(running, "/find")
    running.ask("/api/find/faces/learn", "POST", {"landmarks": 0, "minutes": 1})  # lmk refuses it
    page.until("return !!document.querySelector('[data-job=failed]')", seconds=580)
    told = page.text("[data-job=failed]")
    assert "exit code 2" in told and "landmarks" in told
