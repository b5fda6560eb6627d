"""A run: batches, budget, progress, states on disk, and how it ends."""

import io
import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lmk.runtime.errors import UserError
from lmk.train.config import CoreConfig
from lmk.train.draws import generator
from lmk.train.loop import run as module
from lmk.train.loop.run import DATA_NAME, LOG_EVERY, STATE_NAME, TrainingRun


@pytest.fixture
def clock(monkeypatch):
    """The seconds that a run's clock shows, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def start(tmp_path):
    """Return a function that makes a run; its console writes to `run.monitor.console.file`."""

    def make(steps=10, minutes=None, origin="", data=None, **options):
        config = CoreConfig(output=tmp_path / "core.safetensors", **options)
        console = Console(file=io.StringIO(), soft_wrap=True)
        return TrainingRun(tmp_path / "core", config, steps, minutes, console, origin, data)

    return make


def network(seed=0):
    """Convolution and batch-norm in channels-last, and an Adam that has taken two steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    for step in range(2):
        train_step(model, optimizer, step)
    return model, optimizer


def train_step(model, optimizer, step):
    images = torch.rand(2, 3, 8, 8, generator=generator(0, step))
    optimizer.zero_grad()
    model(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()
    optimizer.step()


def state(run):
    return run.folder / STATE_NAME


def test_budget_of_steps(start):
    run = start(steps=5)
    progress = []
    with run:
        taken = []
        for step in run:
            taken.append(step)
            progress.append(run.progress)
    assert taken == [0, 1, 2, 3, 4] and run.step == 5
    assert progress == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_budget_of_minutes_cuts_the_steps_short(start, clock):
    run = start(steps=10**9, minutes=1.0)
    with run:
        for _ in run:
            clock[0] += 15.0
    assert run.step == 4 and run.progress == 1.0 and run.elapsed == 60.0


def test_checkpoints_are_due_every_minute(start, clock):
    run = start()
    with run:
        assert not run.due()
        clock[0] += 61.0
        assert run.due()
        run.save({}, {})
        assert not run.due()


def test_the_configuration_and_the_events_are_kept(start):
    with start(seed=5) as run:
        for _ in run:
            run.log(4, {"loss": torch.tensor(0.25)})
        run.record({"pck": 0.5}, "validated")
    assert json.loads((run.folder / "config.json").read_text())["seed"] == 5
    (row,) = json.loads((run.folder / "history.json").read_text())
    assert (row["step"], row["pck"]) == (10, 0.5)
    assert len(list(run.folder.glob("events*"))) == 1
    events = EventAccumulator(str(run.folder))
    events.Reload()
    assert [e.value for e in events.Scalars("loss")] == [0.25, 0.25]  # the first and the last
    assert [(e.step, e.value) for e in events.Scalars("pck")] == [(10, 0.5)]


def test_lines_when_piped(start):
    run = start(steps=LOG_EVERY + 5)
    with run:
        for _ in run:
            run.log(4, {"loss": 1.5})
    lines = run.monitor.console.file.getvalue().splitlines()
    assert len(lines) == 3
    for line, step in zip(lines, (1, LOG_EVERY + 1, LOG_EVERY + 5), strict=True):
        assert line.startswith(f"step {step}/{LOG_EVERY + 5}  loss 1.5  ")
        assert "images/s" in line and "s left" in line


def test_resume_goes_on_bit_by_bit(start):
    straight, straight_adam = network()
    saved, saved_adam = network()
    run = start()
    with run:
        for _ in zip(range(2), run, strict=False):
            pass
        run.record({"pck": 0.5}, "")
        run.save({"net": saved}, {"net": saved_adam})
    again, again_adam = network(seed=9)
    resumed = start(resume=True)
    resumed.resume({"net": again}, {"net": again_adam})
    assert resumed.step == run.step and resumed.history == run.history
    for step in range(2, 6):
        train_step(straight, straight_adam, step)
        train_step(again, again_adam, step)
    for name, value in straight.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_time_before_a_resume_counts(start, clock):
    with start(minutes=1.0) as run:
        clock[0] += 40.0
        run.save({}, {})
    clock[0] += 1000.0
    resumed = start(minutes=1.0)
    resumed.resume({}, {})
    assert "going on after step 0" in resumed.monitor.console.file.getvalue()
    ended = start(minutes=0.5)  # less than it had
    ended.resume({}, {})
    assert "had ended after step 0" in ended.monitor.console.file.getvalue()
    with resumed:
        clock[0] += 5.0
        assert resumed.elapsed == 45.0 and resumed.progress == 0.75


def test_resumed_moments_lie_in_memory_as_their_parameters(start):
    model, optimizer = network()
    with start() as run:
        run.save({"net": model}, {"net": optimizer})
    start().resume({"net": model}, {"net": optimizer})
    weight = model[0].weight
    assert weight.stride() != weight.contiguous().stride()
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_resume_without_a_state(start):
    with pytest.raises(UserError, match=r"--resume: no .*state\.safetensors"):
        start().resume({}, {})


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch": 8}, {"target_sigma": 2.0}])
def test_resume_of_another_configuration(start, change):
    with start() as run:
        run.save({}, {})
    (name,) = change
    with pytest.raises(UserError, match=rf"--resume: {name} is {change[name]}, the run in"):
        start(**change).resume({}, {})


DATA = {"data": "shoes", "crop": "image", "images": {"a.png": ["", 1], "b.png": ["", 2]}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"crop": "center"}, "crop: got center, expected image"),
        ({"images": {"a.png": ["", 1], "b.png": ["", 3]}}, "images: b.png was changed"),
        ({"images": {"a.png": ["", 1]}}, "images: b.png is gone"),
    ],
)
def test_resume_with_other_data_names_what_differs(start, change, told):
    with start(data=DATA) as run:
        run.save({}, {})
    start(data=DATA).resume({}, {})
    with pytest.raises(UserError, match=f"{run.folder}: {told}"):
        start(data=DATA | change).resume({}, {})
    (run.folder / DATA_NAME).write_text("{}")
    with pytest.raises(UserError, match=rf"{DATA_NAME}: missing or changed"):
        start(data=DATA | change).resume({}, {})


def test_a_state_that_was_changed_is_refused(start):
    net, adam = network()
    with start() as run:
        run.save({"net": net}, {"net": adam})
    whole = state(run).read_bytes()
    for place in (-20, whole.index(b'\\"elapsed\\": ') + 15):
        damaged = bytearray(whole)
        damaged[place] = ord("7") if damaged[place] != ord("7") else ord("6")
        state(run).write_bytes(damaged)
        with pytest.raises(UserError, match="state.safetensors: damaged"):
            start().resume({"net": net}, {"net": adam})


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"lr": 1e-4},
        {"threads": 2},
        {"resume": True},
        {"output": Path("b.safetensors")},
    ],
)
def test_what_may_change_on_resuming(start, change):
    with start() as run:
        for step in run:
            if step == 3:
                run.save({}, {})
                break
    resumed = start()
    resumed.config = replace(resumed.config, **change)
    resumed.resume({}, {})
    with resumed:
        assert list(resumed) == [4, 5, 6, 7, 8, 9]


def test_resume_from_another_core_names_both(start):
    with start(origin="abc") as run:
        run.save({}, {})
    start(origin="abc").resume({}, {})
    with pytest.raises(UserError, match="sha256 def, .* is from abc"):
        start(origin="def").resume({}, {})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("saved", [True, False])
def test_a_loss_that_is_not_finite_ends_the_run(start, bad, saved):
    model, optimizer = network()
    run, kept = start(), None
    cure = "--resume and a lower --lr" if saved else "start again with a lower --lr"
    with pytest.raises(UserError, match=rf"loss is (-?inf|nan).*{cure}"), run:
        if saved:
            run.save({"net": model}, {"net": optimizer})
            kept = state(run).read_bytes()
        for _ in run:
            run.log(4, {"loss": torch.tensor(bad)})
    assert run.step == 1
    assert not saved or state(run).read_bytes() == kept


def test_a_new_run_forgets_what_the_one_that_it_replaces_has_left(start):
    with start() as run:
        for _ in run:
            run.record({"x": 1.0}, "told")
            run.save({}, {})
            break
    (events,) = run.folder.glob("events.*")
    assert (run.folder / "history.json").exists()
    with start() as run:
        assert not state(run).exists() and not (run.folder / "history.json").exists()
        assert not events.exists()


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(start):
    # A loss is looked at every LOG_EVERY steps: a checkpoint may come in between.
    model, optimizer = network()
    run = start()
    with run:
        run.save({"net": model}, {"net": optimizer})
        kept = state(run).read_bytes()
        model[0].weight.data[0, 0, 0, 0] = math.nan
        with pytest.raises(UserError, match=r"model\.net\.0\.weight holds NaN"):
            run.save({"net": model}, {"net": optimizer})
    assert state(run).read_bytes() == kept


def test_a_disk_that_is_full_keeps_the_last_state(start, full_disk):
    model, optimizer = network()
    with start() as run:
        run.save({"net": model}, {"net": optimizer})
        kept = state(run).read_bytes()
        with full_disk(), pytest.raises(UserError, match="disk is full"):
            run.save({"net": model}, {"net": optimizer})
    assert state(run).read_bytes() == kept
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_step_under_way(start, number):
    before = signal.getsignal(number)
    run = start()
    after = []
    with run:
        for step in run:
            if step == 2:
                signal.raise_signal(number)
            after.append(step)
    assert after == [0, 1, 2] and run.interrupted and run.step == 3
    assert "stopped after step 3" in run.monitor.console.file.getvalue()
    assert signal.getsignal(number) is before


def test_what_nohup_ignores_ends_nothing(start):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with start(steps=3) as run:
            for _ in run:
                signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.step == 3 and run.finished


def test_a_second_signal_ends_at_once(start):
    before = signal.getsignal(signal.SIGINT)
    run = start()
    with pytest.raises(KeyboardInterrupt), run:
        for _ in run:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("threads", "left"), [(None, 1), (2, 2)])
def test_a_run_leaves_others_their_cores_unless_threads_were_chosen(
    start, clock, monkeypatch, threads, left
):
    """Another process computes all the time on one of two cores."""
    monkeypatch.setattr("lmk.train.loop.threads._used_by_others", lambda: clock[0])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    run, seen = start(steps=3, threads=threads), []
    with run:
        for _ in run:
            seen.append(torch.get_num_threads())
            clock[0] += 30
    assert seen == [2, left, left] and torch.get_num_threads() == 2
    torch.set_num_threads(before)
