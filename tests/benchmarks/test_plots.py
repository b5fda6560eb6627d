"""Series -> SVG: everything inside the drawing, names kept, bad input refused."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmk.benchmarks.plots import WIDTH, line_plot

numbers = st.floats(1e-3, 1e6)
series = st.dictionaries(
    st.text(st.characters(exclude_categories=["C"]), min_size=1),
    st.lists(st.tuples(numbers, st.floats(0, 1e6)), min_size=1, max_size=5),
    min_size=1,
    max_size=7,
)


@given(series=series, log_x=st.booleans())
@example(series={"0": [(1.0, 5e-324)]}, log_x=False)  # powers of ten below it are 0
def test_every_point_lies_in_the_drawing(series, log_x):
    root = ElementTree.fromstring(line_plot("t", "x", "y", series, log_x))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == WIDTH
    lines = [item for item in root if item.tag.endswith("polyline")]
    assert len(lines) == 2 * len(series)  # a line, and its sign beside its name
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width and 0 <= y <= height and math.isfinite(x + y)
    names = [item.text for item in root if item.tag.endswith("text")]
    assert set(series) <= set(names)


def test_axes_are_round_numbers_from_zero():
    drawing = line_plot("t", "images", "error", {"a": [(1, 12.0), (1000, 3.0)]}, log_x=True)
    ticks = re.findall(r">([\d.]+)</text>", drawing)
    assert ticks == ["1", "10", "100", "1000", "0", "2", "4", "6", "8", "10", "12"]


def test_names_are_escaped():
    assert "&lt;b&gt;" in line_plot("<b>", "x", "y", {"<b>": [(1, 1)]})


@pytest.mark.parametrize(
    ("series", "message"),
    [({}, "no point"), ({"a": []}, "no point"), ({"a": [(0, 1)]}, "logarithmic")],
)
def test_bad_input(series, message):
    with pytest.raises(ValueError, match=message):
        line_plot("t", "x", "y", series, log_x=True)
