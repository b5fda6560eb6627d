"""The page: whole by itself, of all that was made, readable on a telephone."""

from __future__ import annotations

import json
import re

import pytest

from lmk.benchmarks.paper import page
from lmk.runtime.errors import UserError


@pytest.fixture(scope="module")
def text(made):
    return (made / page.NAME).read_text()


def test_it_shows_every_table_and_figure(made, text):
    for number in range(1, 6):
        assert f'<section id="table{number}">' in text
    sources = re.findall(r'<img src="([^"]{30})', text)
    assert len(sources) == len(list((made / "figures").iterdir())) == 7
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert text.count("<svg ") > 5
    assert "NOT the same data" in text and "Does the paper&#39;s order hold?" not in text


def test_nothing_is_fetched_from_elsewhere(text):
    bare = re.sub(r"data:image/jpeg;base64,[^\"]*", "", text)
    assert not re.search(r"(src|href)=\"(?!#|\")", bare) and not re.search(r"url\((?!#)", bare)
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


def test_it_fits_the_window(text, browser):
    """Tables and pictures scroll in their boxes, the page itself does not; every picture loads."""
    for one in browser(text, 1280, 400)[0]:
        assert one["content"] <= one["width"]
        assert len(one["images"]) == 7 and min(one["images"])[0] > 100
