"""web: a folder of one page, which finds in a browser what ONNX Runtime finds here."""

import functools
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lmk
from lmk.export.web import _FILES, write_page
from lmk.runtime.errors import UserError
from lmk.runtime.model import LIMITS_PX, model_file


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return model_file("faces")


def test_a_page_has_all_that_it_needs_beside_it(model, tmp_path):
    library = tmp_path / "node" / "dist"
    library.mkdir(parents=True)
    for name in _FILES:
        (library / name).write_text(name)
    page = write_page(model, library.parent, tmp_path / "web")
    names = {path.name for path in page.parent.iterdir()}
    own = {"index.html", "page.css", "page.js", "model.onnx", "model.json"}
    assert names == {*own, *_FILES}
    told = json.loads((page.parent / "model.json").read_text())
    assert told["names"] == [f"p{k}" for k in range(10)] and told["size"] == 128
    text = "".join((page.parent / name).read_text() for name in ("index.html", "page.js"))
    assert "://" not in text  # nothing is fetched from elsewhere
    with pytest.raises(UserError, match="exists already"):
        write_page(model, library.parent, tmp_path / "web")

    with tarfile.open(tmp_path / "ort.tgz", "w:gz") as archive:
        for name in _FILES:
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    again = write_page(model, tmp_path / "ort.tgz", tmp_path / "again")
    assert (again.parent / _FILES[0]).read_text() == _FILES[0]


@pytest.mark.parametrize("what", ["gone", "empty", "text.tgz"])
def test_what_is_no_library_is_told_with_the_cure(model, tmp_path, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(UserError, match="npm pack onnxruntime-web"):
        write_page(model, tmp_path / what, tmp_path / "web")
    assert not (tmp_path / "web" / "index.html").exists()


def test_a_browser_finds_what_onnx_runtime_finds(model, tmp_path):
    """Needs ONNX Runtime Web: ORT_WEB names the .tgz of `npm pack onnxruntime-web`."""
    library = os.environ.get("ORT_WEB")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (library and chromium and driver):
        pytest.skip("needs ORT_WEB, Chromium and its driver (Debian: chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    with lmk.load(model) as landmarker:
        size = landmarker.contract.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "a.png")
        scale = landmarker.contract.crop_scale
        side = size / scale
        roi = ((size - side) / 2, (size - side) / 2, side, side)
        expected = landmarker(picture, roi)
    page = write_page(model, Path(library), tmp_path / "web")
    facts = json.loads((page.parent / "model.json").read_text())
    (page.parent / "model.json").write_text(json.dumps(facts | {"crop_scale": 1.0}))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=page.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        ready = "return document.documentElement.dataset.ready"
        _until(browser, ready)
        browser.find_element("id", "file").send_keys(str(tmp_path / "a.png"))
        _until(browser, "return document.getElementById('picture').dataset.found")
        found = json.loads(browser.find_element("id", "picture").get_attribute("data-found"))
    finally:
        browser.quit()
        server.shutdown()
        server.server_close()
    away = np.linalg.norm(np.array(found)[:, :2] - expected.points, axis=1)
    assert away.max() <= LIMITS_PX["fp32"]["max"]
    assert np.abs(np.array(found)[:, 2] - expected.scores).max() < 1e-3


def _until(browser, script):
    end = time.monotonic() + 180
    while not browser.execute_script(script):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.1)
