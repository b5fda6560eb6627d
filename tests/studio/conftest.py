"""A studio that runs, and a browser that is never seen: Debian's chromium and chromedriver."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

LMK = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def drawn():
    """Drawn faces; see drawn_faces.py."""
    path = Path(__file__).with_name("drawn_faces.py")
    spec = importlib.util.spec_from_file_location("drawn_faces", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, drawn):
    """A folder `people` of 14 drawn faces, and the points in each."""
    (tmp_path / "people").mkdir()
    points = []
    for number in range(14):
        image, marks = drawn.face(number)
        Image.fromarray(image).save(tmp_path / "people" / f"{number:02}.png")
        points.append(marks)
    return tmp_path / "people", points


@pytest.fixture(scope="session")
def named(tmp_path_factory, drawn):
    """A pack that finds the points of drawn faces, named from six of them, and its table."""
    from lmk.runtime.model import workspace
    from lmk.train.judge import name_pack

    place = tmp_path_factory.mktemp("named")
    lines = ["file," + ",".join(f"{name}_{axis}" for name in drawn.NAMES for axis in "xy")]
    for number in range(6):
        image, points = drawn.face(100 + number)
        Image.fromarray(image).save(place / f"{number}.png")
        lines.append(f"{number}.png," + ",".join(f"{value:.2f}" for value in points.ravel()))
    table, pack = place / "annotations.csv", place / "faces-named.safetensors"
    table.write_text("\n".join(lines) + "\n")
    zoo = workspace.ZOO
    name_pack(zoo / "faces.safetensors", zoo / "core.safetensors", table, pack)
    return pack, table


class Studio:
    """`lmk studio` in a process of its own."""

    def __init__(self, place, arguments):
        self.place = place
        command = [sys.executable, "-m", "lmk.cli", "studio", "--no-browser", *arguments]
        self.process = subprocess.Popen(
            command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        line = self.process.stdout.readline().decode().strip()
        assert "?token=" in line, self.process.stderr.read().decode()
        self.address = line
        self.root, self.token = line.split("/?token=")

    def ask(self, path, method="GET", body=None):
        """What the studio answers, as JSON."""
        port = self.root.rsplit(":", 1)[1]
        headers = {"Cookie": f"lmk-{port}={self.token}", "Origin": self.root}
        data = None if body is None else json.dumps(body).encode()
        headers |= {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.root + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def studio(tmp_path):
    """Return a function that starts `lmk studio` with the arguments, in a folder of its own."""
    started = []

    def start(*arguments):
        started.append(Studio(tmp_path, [str(argument) for argument in arguments]))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        try:
            each.process.wait(10)
        except subprocess.TimeoutExpired:
            each.kill()
        each.process.stdout.close()
        each.process.stderr.close()


class Page:
    """A page in Chromium, driven by real clicks and keys."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, address, width=1280, height=860):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get(address)

    def enter(self, studio, path="/"):
        """Open the studio by its token, then a room; waits until it is ready."""
        self.open(studio.address)
        self.until("return document.body && !!document.getElementById('room')")
        self.driver.get(studio.root + path)
        self.until("return document.documentElement.dataset.ready === 'yes'")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments, seconds=300):
        """Wait until the script returns something true, and return that."""
        end = time.monotonic() + seconds
        while True:
            value = self.js(script, *arguments)
            if value:
                return value
            assert time.monotonic() < end, f"{script}: {self.js('return document.body.innerText')}"
            time.sleep(0.05)

    def find(self, selector):
        self.until("return !!document.querySelector(arguments[0])", selector)
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        """What is to be read there."""
        return self.until("return document.querySelector(arguments[0])?.innerText", selector)

    def click(self, selector):
        """Click what is there, also if it was drawn anew between being found and clicked."""
        from selenium.common.exceptions import StaleElementReferenceException

        while True:
            try:
                return self.find(selector).click()
            except StaleElementReferenceException:
                continue

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def drag(self, start, end=None):
        """Press at a place of the window, move to another, let go; without `end`, a click."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self.driver, duration=30)
        pointer = actions.pointer_action
        pointer.move_to_location(*map(round, start)).pointer_down()
        if end:
            pointer.move_to_location(*map(round, end))
        pointer.pointer_up()
        actions.perform()

    def at(self, x, y, width, height):
        """Where a pixel of a picture is on the stage that shows all of it, in the window."""
        return self.js(
            """const stage = document.querySelector('.stage canvas').getBoundingClientRect();
            const [x, y, w, h] = arguments;
            const scale = Math.min(stage.width / w, stage.height / h);
            return [stage.left + (stage.width - w * scale) / 2 + (x + .5) * scale,
                    stage.top + (stage.height - h * scale) / 2 + (y + .5) * scale];""",
            *map(float, (x, y)),
            width,
            height,
        )

    def errors(self):
        """What the console complains of."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="session")
def _driver():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: apt install chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture
def page(_driver, studio):  # which ends after the page
    """An empty page; fails when its console complains."""
    made = Page(_driver)
    made.errors()
    yield made
    wrong = [entry["message"] for entry in made.errors()]
    made.open("about:blank")
    assert not wrong, wrong
