"""Series -> a drawing for a page: every line and name, in the colours of the page; bad input."""

from __future__ import annotations

from contextlib import contextmanager
from xml.etree import ElementTree

import pytest

from lmk.benchmarks import plots
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


@pytest.mark.parametrize("drifts", [(None, 0.05, 0.00002), (None, None, None)])
def test_a_picture_has_a_mark_for_each_runner_that_drifts(tmp_path, monkeypatch, drifts):
    figures, drawn = [], plots._figure

    @contextmanager
    def kept(*arguments):
        with drawn(*arguments) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(plots, "_figure", kept)
    batches = {
        batch: {"p50": 2.0, "p90": 3.0, "throughput": 9.0, "speed_up": 1.5} for batch in ("1", "8")
    }
    rows = {f"runner {n}": {"batches": batches, "drift_mean": d} for n, d in enumerate(drifts)}
    result = {"runners": rows, "batches": [1, 8], "device": "cpu", "threads": 2}
    result |= {"machine": {"cpu": "a processor", "gpu": None}, "model": {"category": "cats"}}
    plots.write_plot(tmp_path / "plot.png", result)
    latency, throughput, *rest = figures[0].axes
    assert len(latency.lines) == len(throughput.lines) == 3
    if any(drifts):
        *marks, allowed = rest[0].lines
        seen = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marks]
        assert seen == [(0.05, 1.5), (0.00002, 1.5)] and allowed.get_xdata()[0] == 0.1
        assert [line.get_color() for line in marks] == [x.get_color() for x in latency.lines[1:]]
    else:
        assert not rest
