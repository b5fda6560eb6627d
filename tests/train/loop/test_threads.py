"""Threads of a run beside other processes, on a machine of four cores that is made up."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from lmk.train.loop import threads as module
from lmk.train.loop.threads import FreeCores


@pytest.fixture
def machine(monkeypatch):
    """Clock, own seconds and cores; each core's times in seconds, since it was started."""
    cores = [SimpleNamespace(user=50.0, system=5.0, nice=0.0, idle=0.0) for _ in range(4)]
    now = SimpleNamespace(clock=100.0, own=7.0, cores=cores)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.clock)
    monkeypatch.setattr(module.time, "process_time", lambda: now.own)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: list(now.cores))
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield now
    torch.set_num_threads(before)


def spend(machine, seconds, own, user=0.0, nice=0.0):
    """Let time pass in which we and another process, on the last core, compute."""
    machine.clock += seconds
    machine.own += own
    for core in machine.cores[:3]:
        core.user += own / 3
    machine.cores[3].user += user
    machine.cores[3].nice += nice


def test_one_thread_less_beside_a_busy_core_and_all_when_it_is_free_again(machine):
    said = []
    with FreeCores(said.append, fixed=False) as cores:
        spend(machine, 10, own=30, user=9)
        cores.adjust()
        assert torch.get_num_threads() == 3
        spend(machine, 10, own=30, user=1)
        cores.adjust()
        assert torch.get_num_threads() == 4
        spend(machine, 10, own=30, user=9)
        cores.adjust()
    assert torch.get_num_threads() == 4  # as before the run
    assert said == [
        "other processes keep 0.9 cores busy: computing with 3 of 4 threads while they do"
    ]


def test_a_thread_is_left_however_busy_others_are(machine):
    with FreeCores([].append, fixed=False) as cores:
        spend(machine, 10, own=1, user=60)
        cores.adjust()
        assert torch.get_num_threads() == 1


def test_our_own_computing_does_not_count(machine):
    said = []
    with FreeCores(said.append, fixed=False) as cores:
        spend(machine, 10, own=40)
        cores.adjust()
        assert torch.get_num_threads() == 4 and not said


@pytest.mark.parametrize(("used", "threads"), [(4, 4), (5, 3)])
def test_what_has_a_lower_priority_counts_for_what_it_gets(machine, used, threads):
    with FreeCores([].append, fixed=False) as cores:
        spend(machine, 10, own=30, nice=used)
        cores.adjust()
        assert torch.get_num_threads() == threads


def test_cores_that_we_may_not_use_do_not_count(machine, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    torch.set_num_threads(3)
    with FreeCores([].append, fixed=False) as cores:
        spend(machine, 10, own=30, user=10)
        cores.adjust()
        assert torch.get_num_threads() == 3


def test_a_number_that_was_chosen_stays(machine):
    with FreeCores([].append, fixed=True) as cores:
        spend(machine, 10, own=10, user=30)
        cores.adjust()
        assert torch.get_num_threads() == 4


def test_a_moment_says_nothing(machine):
    with FreeCores([].append, fixed=False) as cores:
        spend(machine, 0.1, own=0, user=0.4)
        cores.adjust()
        assert torch.get_num_threads() == 4
        spend(machine, 10, own=40)  # looked at together with that moment
        cores.adjust()
        assert torch.get_num_threads() == 4


def test_cores_count_and_not_threads(machine):
    """Two threads on four cores, of which two are busy: both go on."""
    torch.set_num_threads(2)
    with FreeCores([].append, fixed=False) as cores:
        spend(machine, 10, own=20, user=20)
        cores.adjust()
        assert torch.get_num_threads() == 2
        spend(machine, 10, own=20, user=30)
        cores.adjust()
        assert torch.get_num_threads() == 1


def test_a_container_that_numbers_its_cores_anew(machine, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {20, 21, 22, 23}, raising=False)
    with FreeCores([].append, fixed=False) as cores:
        spend(machine, 10, own=30, user=9)
        cores.adjust()
        assert torch.get_num_threads() == 3


def test_nothing_is_looked_at_where_threads_stay(machine, monkeypatch):
    monkeypatch.delattr(psutil, "cpu_times")
    with FreeCores([].append, fixed=True) as cores:
        cores.adjust()
