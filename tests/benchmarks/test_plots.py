"""Series -> a drawing for a page: every line and name, in the colours of the page; bad input."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from lmk.benchmarks.plots import line_plot


def test_a_drawing_has_every_name_and_the_colour_of_its_page():
    series = {"<b>$x$": [(1, 12.0), (1000, 3.0)], "_hidden": [(10, 1.0)]}
    drawing = line_plot("what <is> seen", "images", "error, %", series, log_x=True)
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"] == "what <is> seen" and root.attrib["class"] == "plot"
    assert not {"width", "height"} & set(root.attrib)  # it scales
    texts = [item.text for item in root.iter() if item.tag.endswith("text")]
    assert {*series, "images", "error, %", "1", "1000", "0"} <= set(texts)
    assert "currentColor" in drawing and "#010203" not in drawing
    assert drawing == line_plot("what <is> seen", "images", "error, %", series, log_x=True)


@pytest.mark.parametrize(
    ("series", "message"),
    [({}, "no point"), ({"a": []}, "no point"), ({"a": [(0, 1)]}, "logarithmic")],
)
def test_bad_input(series, message):
    with pytest.raises(ValueError, match=message):
        line_plot("t", "x", "y", series, log_x=True)
