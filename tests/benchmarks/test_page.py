"""The page: whole by itself, of all that was made, readable on a telephone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from lmk.benchmarks import page
from lmk.runtime.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def text(made):
    return (made / page.NAME).read_text()


def test_it_shows_every_table_and_figure(made, text):
    for number in range(1, 6):
        assert f'<section id="table{number}">' in text
    sources = re.findall(r'<img src="([^"]{30})', text)
    assert len(sources) == len(list((made / "figures").iterdir())) == 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert text.count("<svg ") > 5
    assert "NOT the same data" in text and "Does the paper&#39;s order hold?" not in text


def test_nothing_is_fetched_from_elsewhere(text):
    bare = re.sub(r"data:image/jpeg;base64,[^\"]*", "", text)
    assert not re.search(r"(src|href)=\"(?!#|\")", bare) and "url(" not in bare
    assert "default-src 'none'" in bare and "<script" not in bare


def test_pictures_have_words_and_sizes(text):
    for tag in re.findall(r"<img [^>]*>", text):
        assert re.search(r'width="\d+" height="\d+" alt="[^"]{20,}"', tag)
    for tag in re.findall(r"<svg [^>]*>", text):
        assert 'role="img"' in tag and re.search(r'aria-label="[^"]{10,}"', tag)


def test_earlier_tables_stay_on_it_and_texts_are_escaped(made, tmp_path):
    (tmp_path / "tables").mkdir()
    for name in ("table3", "table1"):
        result = json.loads((made / f"tables/{name}.json").read_text())
        result["notes"] = ["<script>alert(1)</script>"]
        (tmp_path / f"tables/{name}.json").write_text(json.dumps(result))
    text = page.write(tmp_path).read_text()
    assert re.findall(r'<section id="(\w+)">', text) == ["table1", "table3"]
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "<img" not in text  # no figure was ever made


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(UserError, match="got no table, expected some; run `lmk reproduce table1`"):
        page.write(tmp_path)


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_window(text, tmp_path, width):
    """Tables and pictures scroll in their boxes, the page itself does not; every picture loads."""
    probe = (
        "<script>addEventListener('load', () => parent.postMessage(JSON.stringify({"
        "page: document.documentElement.scrollWidth, window: innerWidth,"
        "pictures: [...document.images].map(i => i.naturalWidth)}), '*'))</script>"
    )
    copy = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"{probe}</body>")
    (tmp_path / "page.html").write_text(copy)
    # Within a frame, because windows are never narrower than 500 pixels.
    frame = (
        "<title></title><script>onmessage = e => { document.title = e.data }</script>"
        f'<iframe src="page.html" width="{width}" height="900"></iframe>'
    )
    (tmp_path / "frame.html").write_text(frame)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True
    )
    measured = json.loads(html.unescape(re.search("<title>(.*)</title>", done.stdout)[1]))
    assert measured["page"] <= measured["window"] == width
    assert len(measured["pictures"]) == 4 and min(measured["pictures"]) > 100
