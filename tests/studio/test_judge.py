"""Judge and Ship: which landmarks to trust, fewer of them, and the files for elsewhere."""

import json
import time
from types import SimpleNamespace

from lmk.runtime.model import read_header, read_model
from lmk.studio import judge
from lmk.studio.jobs import Jobs
from lmk.studio.judge import JudgeRoom
from lmk.studio.project import Project


def test_what_nobody_waits_for_ends_and_is_begun_anew(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    room, begun = JudgeRoom(Project([str(folder[0])]), Jobs()), []

    def decode(dataset, size, crop, cache, tell):
        begun.append(tell)
        (known,) = room._known.values()
        known.asked -= 2 * judge._PATIENCE  # the page was left
        tell(1, 14)

    monkeypatch.setattr("lmk.train.datasets.decode", decode)
    request = SimpleNamespace(path_params={"pack": "faces", "source": "people"})
    for number in (1, 2):
        assert json.loads(room.judged(request).body)["state"] == "running"
        while room._known:
            time.sleep(0.01)
        assert len(begun) == number


def test_a_landmark_is_switched_off_and_two_are_merged(page, studio, folder, tmp_path):
    from selenium.webdriver.support.ui import Select

    page.enter(studio(folder[0], "faces"), "/judge")
    assert "landmarks are" in page.text("#summary")
    assert len(page.driver.find_elements("css selector", "[data-landmark]")) == 10
    page.until("return [...document.querySelectorAll('.crop img')].slice(0, 6)"
               ".every(image => image.complete && image.naturalWidth > 0)")  # fmt: skip
    page.click("[data-landmark=p3] button[aria-pressed]")
    page.until("return !!document.getElementById('prune')")
    Select(page.find("[data-landmark=p5] select")).select_by_visible_text("p1")
    page.until("return document.querySelector('.card.row b').textContent.startsWith('8 of 10')")
    page.click("#prune")
    page.until("return !!document.querySelector('[data-job=done]')", seconds=580)
    names = [f"p{k}" for k in range(10) if k not in (3, 5)]
    header = read_header(tmp_path / "runs" / "faces-pruned.safetensors")
    assert header["landmark_names"] == names and header["pruned"]["merge"] == [["p1", "p5"]]
    contract = read_model(tmp_path / "runs" / "faces-pruned.onnx")[1]
    assert list(contract.landmark_names) == names and contract.drift["max_px"] < 0.01

    page.open(page.driver.current_url.replace("/judge", "/ship").split("?")[0])
    page.until("return document.documentElement.dataset.ready === 'yes'")
    Select(page.find("select[aria-label=Pack]")).select_by_visible_text("faces-pruned")
    row = page.until(
        "return document.querySelector('[data-file=\"faces-pruned.onnx\"]')?.innerText"
    )
    assert "MB" in row and "px" in row
    page.click("[data-file='faces-pruned.onnx'] button")
    shown = "return document.querySelector(arguments[0]).innerText.includes(' ms')"
    page.until(shown, "[data-file='faces-pruned.onnx']")
