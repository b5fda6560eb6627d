"""A reproduction from end to end: made, found made, stopped, gone on with, and what fails in it."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from lmk.benchmarks.commands import reproduce_command
from lmk.benchmarks.paper import jobs
from lmk.benchmarks.paper import reproduction as module
from lmk.benchmarks.paper.plan import PackJob, plan
from lmk.benchmarks.paper.reproduction import Budget, describe, reproduce
from lmk.runtime.errors import UserError
from lmk.runtime.model.weights import read_header

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def copied(made, tmp_path):
    """A finished reproduction to spoil."""
    return shutil.copytree(made, tmp_path / "copied")


def never(*arguments):
    raise AssertionError("nothing was to be run")


def sha256(folder, name):
    return read_header(folder / "packs" / f"puppet-butterfly-{name}.safetensors")["sha256"]


def read_table(folder, name):
    return json.loads((folder / "tables" / f"{name}.json").read_text())


def test_everything_of_every_table_is_made(made):
    assert {path.name for path in (made / "cores").glob("*.safetensors")} == {
        "puppet.safetensors",
        "puppet-epoch1.safetensors",
    }
    stems = {path.stem for path in (made / "packs").glob("*.safetensors")}
    extra = {"projection-core1", "projection-10images"}
    assert stems == {f"puppet-butterfly-{m}" for m in ("scratch", "finetune", "projection", *extra)}
    assert {path.stem for path in (made / "evaluations").iterdir()} == {
        f"{stem}-on-butterfly" for stem in stems
    }
    for number in range(1, 6):
        table = read_table(made, f"table{number}")
        assert table["own_data"] and len(table["lines"]) == {4: 2, 5: 2}.get(number, 3)
        for line in table["lines"]:
            assert math.isfinite(line["report"]["consistency_px"]) and line["missing"] is None
            assert line["report"]["forward_mean_shape_percent"] > 0
        assert (made / "tables" / f"table{number}.md").read_text().startswith(f"# table{number}")
    assert (made / "index.html").stat().st_size > 10_000


def test_all_methods_have_had_the_same_steps(made):
    headers = [read_header(path) for path in (made / "packs").glob("*.safetensors")]
    assert {header["step"] for header in headers} == {3}
    few = read_header(made / "packs/puppet-butterfly-projection-10images.safetensors")
    assert few["config"]["images"] == 10
    early = read_header(made / "packs/puppet-butterfly-projection-core1.safetensors")
    assert early["core_sha256"] == read_header(made / "cores/puppet-epoch1.safetensors")["sha256"]


def test_what_is_done_is_not_done_again(made, options, monkeypatch):
    monkeypatch.setattr(module, "run", never)
    outcome = reproduce("all", options(made))
    assert (outcome.failed, outcome.left) == ({}, [])
    assert all(line.endswith(": done") for line in describe("all", options(made)))


def test_an_interrupted_pack_becomes_the_same_as_one_that_was_not(
    made, tmp_path, options, press_ctrl_c
):
    shutil.copytree(made / "cores", tmp_path / "cores")
    wanted = options(tmp_path, methods=("finetune",))
    press_ctrl_c(2)
    with pytest.raises(KeyboardInterrupt):
        reproduce("table1", wanted)
    assert "pack puppet-butterfly-finetune: to be gone on with" in list(describe("table1", wanted))
    press_ctrl_c(10**6)
    assert not reproduce("table1", wanted).failed
    assert sha256(tmp_path, "finetune") == sha256(made, "finetune")


def test_the_time_budget_interrupts_whatever_is_under_way():
    budget = Budget(0.001)
    with pytest.raises(KeyboardInterrupt), budget.watch():
        time.sleep(60)
    assert budget.spent
    with Budget(60).watch():
        pass  # and not what comes in time
    assert not Budget(None).spent


def test_a_spent_time_budget_stops_cleanly_and_the_next_call_goes_on(
    made, tmp_path, options, monkeypatch
):
    shutil.copytree(made / "cores", tmp_path / "cores")
    run, begin = module.run, Budget.__init__
    budgets = []

    def until_finetune(job, force):
        if job.name == "pack puppet-butterfly-finetune":
            budgets[0]._interrupt()
        run(job, force)

    with monkeypatch.context() as patched:
        patched.setattr(Budget, "__init__", kept(begin, budgets))
        patched.setattr(module, "run", until_finetune)
        outcome = reproduce("table3", options(tmp_path, time_budget=60))
    assert not outcome.failed
    assert outcome.left[0] == "pack puppet-butterfly-finetune" and len(outcome.left) == 4
    notes = read_table(tmp_path, "table3")["notes"]
    assert "butterfly, finetune: missing; the time budget was spent" in notes
    assert not reproduce("table3", options(tmp_path)).left


def kept(begin, budgets):
    """`begin` of an object, which is put into a list too."""

    def beginning(self, minutes):
        begin(self, minutes)
        budgets.append(self)

    return beginning


def test_a_failing_job_does_not_stop_the_others(made, tmp_path, options):
    shutil.copytree(made / "cores", tmp_path / "cores")
    shutil.copytree(made / "packs", tmp_path / "packs")
    data = ("nowhere", "builtin:butterfly")
    outcome = reproduce("table3", options(tmp_path, data=data, methods=("scratch", "finetune")))
    assert outcome.failed.keys() == {
        f"{job} puppet-nowhere-{method}{where}"
        for method in ("scratch", "finetune")
        for job, where in (("pack", ""), ("evaluation", "-on-nowhere"))
    }
    table = read_table(tmp_path, "table3")
    missing = [line for line in table["lines"] if line["missing"]]
    assert [line["category"] for line in missing] == ["nowhere", "nowhere"]
    assert missing[0]["missing"].startswith("--data nowhere: no such folder")
    assert "nowhere, consistency: no figure for finetune, scratch" in table["order"][0]
    assert table["order"][1].startswith("butterfly, consistency: ")


def test_missing_data_are_told_before_anything_is_begun(tmp_path, options, capsys, monkeypatch):
    monkeypatch.setenv("LMK_DATA", str(tmp_path))
    lines = list(describe("table3", options(tmp_path, data=("nowhere", "builtin:butterfly"))))
    assert lines[-1].startswith(f"missing data: nowhere, expected as folders in {tmp_path} ")
    assert "--core-data, --data and --test" in lines[-1]
    outcome = reproduce("table3", options(tmp_path, core_data="nobody", data=("nowhere",)))
    told = capsys.readouterr().err
    assert told.index("missing data: nobody, nowhere") < told.index("core nobody failed")
    assert outcome.blocked == list(outcome.failed)[1:] and "core nobody" in outcome.failed


def test_a_bug_in_a_job_is_told_and_does_not_stop_the_others(copied, options, monkeypatch):
    for path in (copied / "evaluations").glob("*scratch*"):
        path.unlink()
    monkeypatch.setattr(jobs, "evaluate", lambda *arguments, **more: 1 // 0)
    outcome = reproduce("table3", options(copied))
    (reason,) = outcome.failed.values()
    assert reason.startswith("internal error, please report it: ZeroDivisionError")


def test_another_configuration_is_refused_unless_forced(copied, options):
    before = sha256(copied, "projection")
    other = options(copied, steps=2, methods=("projection",))
    (line,) = [line for line in describe("table1", other) if line.startswith("pack")]
    assert "was made with steps 3, expected 2; give the options it was made with" in line
    assert "--force to make it anew" in reproduce("table1", other).failed[line.split(": ")[0]]
    assert sha256(copied, "projection") == before
    assert not reproduce("table1", other, force=True).failed
    assert sha256(copied, "projection") != before


def test_only_what_a_method_uses_must_be_the_same(made, options):
    packs = {
        job.row.method: replace(job, config=replace(job.config, projection_rate=3.0))
        for job in plan("table3", options(made).for_device("cpu")).jobs
        if isinstance(job, PackJob)
    }
    assert jobs.state(packs["scratch"]) == jobs.state(packs["finetune"]) == jobs.DONE
    with pytest.raises(UserError, match="was made with projection_rate 2.0, expected 3.0"):
        jobs.state(packs["projection"])


def test_another_core_is_refused(copied, options):
    shutil.copy(copied / "cores/puppet-epoch1.safetensors", copied / "cores/puppet.safetensors")
    found = list(describe("table1", options(copied, core=copied / "cores/puppet.safetensors")))
    assert "was made with core_sha256" in found[1]


def test_an_evaluation_of_another_pack_is_made_again(copied, options):
    path = copied / "evaluations/puppet-butterfly-projection-on-butterfly.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps({**old, "pack_sha256": "of another", "consistency_px": -1}))
    states = dict(line.split(": ", 1) for line in describe("table3", options(copied)))
    assert states.pop("evaluation puppet-butterfly-projection-on-butterfly") == "to do"
    assert set(states.values()) == {"done"}
    assert not reproduce("table3", options(copied)).failed
    assert json.loads(path.read_text())["consistency_px"] == old["consistency_px"]


def test_an_evaluation_with_other_options_is_made_again(made, options):
    other = plan("table3", options(made, test_images=2))
    evaluations = [job for *_, job in other.lines]
    assert [jobs.state(job) for job in evaluations] == ["to do"] * 3


def test_a_core_that_is_given_is_used_and_not_trained(made, tmp_path, options):
    core = shutil.copy(made / "cores/puppet.safetensors", tmp_path / "mine.safetensors")
    folder = tmp_path / "out"
    given = options(folder, core=core, core_data=None, methods=("projection",))
    assert not reproduce("table1", given).failed
    header = read_header(folder / "packs/mine-butterfly-projection.safetensors")
    assert header["core_sha256"] == read_header(core)["sha256"]
    assert not (folder / "cores").exists()
    failed = reproduce("table4", options(folder, core=core, core_data=None)).failed
    assert "mine-epoch1.safetensors is missing" in failed["pack mine-butterfly-projection-core1"]


def test_a_missing_early_core_is_told(copied, options):
    (copied / "cores/puppet-epoch1.safetensors").unlink()
    reason = reproduce("table4", options(copied)).failed["core puppet"]
    assert "puppet-epoch1.safetensors: missing, expected the core after 1 epochs" in reason


def test_a_broken_core_fails_its_packs_with_its_reason(copied, options):
    (copied / "cores/puppet.safetensors").write_bytes(b"junk")
    outcome = reproduce("table1", options(copied))
    assert len(outcome.failed) == 7  # and no traceback
    for line in read_table(copied, "table1")["lines"]:
        assert "puppet.safetensors" in line["missing"]


def command(*arguments):
    return CliRunner().invoke(reproduce_command, [str(a) for a in arguments])


TINY = ["--core-data", "builtin:puppet", "--data", "builtin:butterfly", "--width", "small"]
TINY += ["--input-size", 64, "--core-epochs", 2, "--steps", 3, "--batch", 4, "--landmarks", 5]
TINY += ["--images", 10, "--device", "cpu", "--threads", 1]


def test_command_prints_the_page(made):
    result = command("table3", "--folder", made, *TINY)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{made / 'index.html'}\n"


def test_command_dry_run_does_nothing(tmp_path):
    result = command("table4", "--folder", tmp_path, "--dry-run", *TINY)
    assert result.stdout.splitlines() == [
        "core puppet: to do",
        "pack puppet-butterfly-projection-core1: to do",
        "evaluation puppet-butterfly-projection-core1-on-butterfly: to do",
        "pack puppet-butterfly-projection: to do",
        "evaluation puppet-butterfly-projection-on-butterfly: to do",
    ]
    assert not list(tmp_path.iterdir())


def test_command_ends_with_1_when_something_failed(made, tmp_path):
    shutil.copytree(made / "cores", tmp_path / "cores")
    result = command("table1", "--folder", tmp_path, "--test", "nowhere", *TINY)
    assert result.exit_code == 1
    assert "failed: evaluation puppet-butterfly-projection-on-nowhere: --data nowhere: no such" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"methods": ("magic",)}, "--methods: got 'magic', expected one of projection, finetune"),
        ({"test": ("cats=faces",)}, "--test: got 'cats=faces', expected TEST or DATA=TEST"),
        ({"steps": 0}, "--steps: got 0, expected more than 0"),
        ({"time_budget": -1.0}, "--time-budget: got -1.0, expected more than 0"),
    ],
)
def test_bad_options(tmp_path, options, more, message):
    with pytest.raises(UserError, match="^" + message.replace("'", ".")):
        options(tmp_path, **more)
