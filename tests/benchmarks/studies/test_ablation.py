"""The ablation and the curve of time: every row made once, judged, and gone on with."""

import json

import pytest
from click.testing import CliRunner

from lmk.benchmarks.studies import ablation, time_to_quality
from lmk.runtime.model.weights import read_header

BUTTERFLY = "builtin:butterfly"


@pytest.fixture
def core(made):
    return next(made.glob("cores/*puppet.safetensors"))


def call(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_rows_are_judged_and_not_made_twice(tiny, core, tmp_path):
    common = ("--folder", tmp_path, "--core", core, "--data", BUTTERFLY, "--steps", 2)
    common += ("--set", "batch=4", "--set", "landmarks=5", "--set", "generator_width=4")
    call(ablation.main, *common, "--row", "default", "--row", "jitter 0.2")
    pack = tmp_path / "default.safetensors"
    first = pack.stat().st_mtime_ns
    call(ablation.main, *common, "--row", "default", "--row", "separation 0")
    assert pack.stat().st_mtime_ns == first
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert list(found["rows"]) == ["default", "jitter 0.2", "separation 0"]
    measures = found["rows"]["default"]["tests"][BUTTERFLY]
    assert set(measures) == set(ablation.MEASURES)
    assert read_header(tmp_path / "jitter-0.2.safetensors")["config"]["jitter"] == 0.2
    lines = (tmp_path / "ablation.md").read_text().splitlines()
    assert len(lines) == 5
    assert f"{measures['consistency_px']:.2f}" in lines[2]


def test_every_row_is_a_change_that_adapt_takes():
    for change in ablation.ROWS.values():
        ablation.AdaptConfig(**change)


def test_a_curve_of_budgets(tiny, core, tmp_path):
    common = ("--folder", tmp_path, "--core", core, "--data", BUTTERFLY, "--test", BUTTERFLY)
    call(time_to_quality.main, *common, "--steps", 2, "--steps", 1)
    found = json.loads((tmp_path / "time_to_quality.json").read_text())
    assert list(found["budgets"]) == ["1", "2"]
    assert all(row["minutes"] > 0 for row in found["budgets"].values())
    drawn = (tmp_path / "time_to_quality.svg").read_text()
    assert drawn.startswith("<svg") and "consistency, px" in drawn
