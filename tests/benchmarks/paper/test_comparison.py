"""Reports -> grids, verdicts and Markdown."""

from __future__ import annotations

import json

import pytest

from lmk.benchmarks.paper import comparison
from lmk.benchmarks.paper.comparison import compare, markdown, paper_title
from lmk.benchmarks.paper.experiments import METHODS
from lmk.benchmarks.paper.plan import plan


def report(scale=1.0, collapsed=False, annotated=True, landmarks=3):
    """What `evaluate` gives, every error `scale` times that of the best."""
    each = [scale * (rank + 1) for rank in range(landmarks)]
    found = {"data": "d", "leak_free": True, "collapsed": collapsed, "spread_px": 20.0}
    found |= {"collapsed_because": "one blob", "consistency_px": 2 * scale}
    found["consistency_px_each"] = each
    if annotated:
        found |= {"normaliser": "inter-ocular distance", "regressor_images": 30}
        for name, value in (("forward", 10 * scale), ("backward", 20 * scale)):
            found |= {f"{name}_percent": value, f"{name}_mean_shape_percent": 50.0}
            found[f"{name}_by_images"] = [
                {"images": n, "mean_percent": value + 30 / n, "std_percent": 1.5} for n in (5, 30)
            ]
    return found


@pytest.fixture
def compared(monkeypatch, tmp_path, options):
    """Return a function: table and reports by method (an absent one is missing) -> result."""

    def make(name, reports, **more):
        wanted = options(tmp_path, **more).for_device("cpu")
        planned = plan(name, wanted)
        by_job = {
            job.name: reports.get(row.method)
            for table in planned.tables
            for _, row, job in planned.of(table)
        }
        header = {"step": 7, "seconds": 3.0, "images": 40, "network": {"width": 16}}
        header |= {"config": {"batch": 4, "epochs": 2}, "history": [{"pck": 0.5}]}
        header["network"] = {"width": 16, "input_size": 64}
        monkeypatch.setattr(comparison, "read_evaluation", lambda job: by_job[job.name])
        monkeypatch.setattr(comparison, "read_header", lambda path: header)
        (table,) = planned.tables
        result = compare(planned, table, wanted, lambda job: None)
        return json.loads(json.dumps(result, allow_nan=False))  # it must be JSON

    return make


GOOD = {"projection": report(1), "finetune": report(1.5), "scratch": report(4)}


def test_regression_has_both_directions_and_every_number_of_images(compared):
    grid = compared("table2", GOOD)["grid"]
    assert grid["columns"] == [
        *("test set", "method", "error, %", "5", "all", "mean shape", "spread, px"),
    ]
    assert grid["rows"][-2:] == [
        ["butterfly", "projection", "forward", "16.00 ± 1.50", "10.00", "50.00", "20.00"],
        ["butterfly", "projection", "backward", "26.00 ± 1.50", "20.00", "50.00", "20.00"],
    ]
    assert len(grid["rows"]) == 2 * len(METHODS)


def test_consistency_is_sorted_by_landmark(compared):
    grid = compared("table3", GOOD)["grid"]
    assert grid["columns"] == ["test set", "method", "#1", "#2", "#3", "mean", "spread, px"]
    figures = ["1.00", "2.00", "3.00", "2.00", "20.00"]
    assert grid["rows"][2] == ["butterfly", "projection", *figures]


def test_every_row_fills_every_column(compared):
    for name in ("table1", "table2", "table3", "table4", "table5", "generalization"):
        for reports in (GOOD, {}, {"projection": report(annotated=False, landmarks=2)}):
            result = compared(name, reports)
            for grid in (result["grid"], result["paper"]):
                assert {len(row) for row in grid["rows"]} <= {len(grid["columns"])}


def test_the_paper_stands_beside_ours_only_on_its_own_data(compared):
    own = compared("table1", GOOD)
    assert "the paper's" not in own["grid"]["columns"]
    assert "NOT the same data" in paper_title(own) and paper_title(own) in markdown(own)
    same = compared("table1", GOOD, data=(), core_data=None)
    place = same["grid"]["columns"].index("the paper's")
    assert [row[place] for row in same["grid"]["rows"][:3]] == ["5.00", "3.91", "3.99"]
    assert ["MAFL", "Jakab et al. 2018", "3.19"] in same["paper"]["rows"]


def test_figures_that_are_not_known_stay_empty(compared):
    rows = compared("table5", GOOD, data=(), images=(10, 100, 1000))["paper"]["rows"]
    assert ["AFLW", "projection, 10 images", "12.01", "7.31", "–"] in rows
    assert not any("100 images" in row[1] or "1000 images" in row[1] for row in rows)


def test_order_holds_and_does_not(compared):
    assert compared("table1", GOOD)["order"] == [
        "butterfly, forward: projection 10.00 < finetune 15.00 < scratch 40.00: "
        "projection < finetune < scratch holds"
    ]
    bad = {**GOOD, "finetune": report(5), "scratch": report(5)}
    (line,) = compared("table3", bad)["order"]
    assert line.endswith("projection < finetune < scratch does not hold")  # a tie is no order


def test_order_with_a_collapsed_or_missing_method(compared):
    blob = {**GOOD, "scratch": report(0.1, collapsed=True)}
    result = compared("table2", blob)
    assert result["order"][1].endswith("does not hold, but scratch collapsed, so it says nothing")
    assert "scratch †" in [row[1] for row in result["grid"]["rows"]]
    assert "† butterfly, scratch: collapsed, one blob" in result["notes"]
    result = compared("table1", {"projection": report()})
    assert result["order"] == [
        "butterfly, forward: no figure for finetune, scratch, so the order cannot be judged"
    ]
    assert "butterfly, finetune: missing; not made yet" in result["notes"]


def test_the_papers_own_figures_do_not_always_hold_either(compared):
    lines = compared("table1", GOOD)["paper_order"]
    assert [line.split(":")[0] for line in lines] == ["MAFL, forward", "AFLW, forward"]
    assert [line.endswith("scratch holds") for line in lines] == [False, True]


def test_no_order_where_methods_are_not_compared(compared):
    assert compared("table4", GOOD)["order"] == []
    assert compared("table3", GOOD, methods=("finetune-last", "projection"))["order"] == []


def test_data_without_points_are_said_to_have_none(compared):
    result = compared("table1", {m: report(annotated=False) for m in METHODS})
    note = "butterfly: no annotated points, hence no forward and backward errors"
    assert result["notes"].count(note) == 1
    assert result["grid"]["rows"][0][2] == "–"


def test_the_budget_is_stated(compared):
    text = markdown(compared("table4", GOOD))
    for part in ("3 steps of 4 images", "core: puppet, 2 epochs, width 16, 64 px", "3 to 3 s"):
        assert part in text
    assert "one run each" in text and "tables made on: " in text
    assert "core after 5 epochs: left out" in text
    assert "50.00" in text  # PCK of the core


def test_markdown_is_a_table(compared):
    lines = markdown(compared("table3", GOOD)).splitlines()
    assert lines[0].startswith("# table3: ")
    assert len({line.count("|") for line in lines[2:7]}) == 1
