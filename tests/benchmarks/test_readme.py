"""The tables of README are those of the JSON that they name."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmk.benchmarks.readme import TABLES, filled, films, main, packs
from lmk.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKED = "".join(f"{name}:\n<!-- table: {name} -->\nold\n<!-- end -->\n" for name in TABLES)


def test_readme_shows_what_was_measured():
    assert filled(README) == README, "run `python -m lmk.benchmarks.readme`"
    result = json.loads((ROOT / "benchmarks/results/bench-faces-cpu.json").read_text())
    crop = f"{result['runners']['ort-cpu']['batches']['1']['p50']:.1f} ms a crop"
    assert crop in README, f"in README.md must stand: {crop}"


def test_only_what_is_between_marks_is_made_anew(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKED, encoding="utf-8")
    result = CliRunner().invoke(main, [str(page)])
    assert result.exit_code == 0, result.output
    made = page.read_text(encoding="utf-8")
    assert "old" not in made and made.count("<!-- end -->") == len(TABLES)
    assert made.startswith("packs:\n<!-- table: packs -->\n| pack | judged on |")
    assert filled(made) == made


@pytest.mark.parametrize("page", ["", MARKED.replace("films", "flims"), 2 * MARKED])
def test_each_table_has_its_marks_once(page, tmp_path):
    with pytest.raises(UserError, match=r"README: got marks of .*, expected those of each once"):
        filled(page)
    file = tmp_path / "page.md"
    file.write_text(page)
    result = CliRunner().invoke(main, [str(file)])
    assert result.exit_code == 1 and result.output.startswith("Error: README: got")
    assert file.read_text() == page


def test_a_row_for_each_set_that_a_pack_was_judged_on():
    told = {"data": "a", "consistency_px": 0.514, "consistency_still_px": 5.5}
    errors = {"forward_percent": 11.14, "forward_mean_shape_percent": 31.7}
    named = {**told, "data": "b", "normaliser": "torso", **errors}
    pack = {"seconds": 90.0, "measures": [told, named]}
    student = {"seconds": 60.0, "teacher": {"name": "cats"}, "measures": [told]}
    lines = packs({"entries": {"core": {"seconds": 1}, "cats": pack, "quick": student}})
    assert lines.splitlines()[2:] == [
        "| [cats](zoo/README.md#cats) | a | 2 min | 0.51 px | 5.50 | no labels |  |",
        "|  | b |  | 0.51 px | 5.50 | 11.1 % of the torso | 31.7 |",
        "| [quick](zoo/README.md#quick), [a student](docs/training.md#a-student) | a | 1 min "
        "| 0.51 px | 5.50 | no labels |  |",
    ]


@pytest.mark.parametrize(("more", "same"), [({}, "1.19"), ({"speed_up_same_runner": 1.05}, "1.05")])
def test_a_row_a_video(more, same):
    rates = {"frames_per_second": 152.4, "speed_up": 1.187}
    rows = {"csv": rates | more, "overlay": rates}
    video = {"file": "long.mp4", "size": [1080, 1920], "rows": rows}
    assert films({"videos": [video]}).splitlines()[2:] == [
        f"| made for the run | 1920×1080 | 152 | 1.19 | {same} | 152 | 1.19 |"
    ]
