"""engine_log: percents that only rise, and TensorRT's words where they belong."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.export.engine.build import PERCENT, failure, monitor_of, progress_of
from lmk.runtime.runners import make_log

trt = pytest.importorskip("tensorrt_rtx")


def run(monitor, tree, name="0", parent=None):
    """Go through nested phases as TensorRT does; `tree` has one entry a step: its sub-phases."""
    monitor.phase_start(name, parent, len(tree))
    for step, phases in enumerate(tree):
        for index, phase in enumerate(phases):
            run(monitor, phase, f"{name}.{step}.{index}", name)
        assert monitor.step_complete(name, step)
    monitor.phase_finish(name)


TREES = st.recursive(
    st.lists(st.just([]), min_size=1, max_size=4),
    lambda trees: st.lists(st.lists(trees, max_size=2), min_size=1, max_size=4),
    max_leaves=12,
)


@given(tree=TREES)
def test_percents_rise_to_the_end(tree):
    seen = []
    run(monitor_of(trt, seen.append), tree)
    assert seen == sorted(set(seen)) and seen[-1] == PERCENT and seen[0] > 0


def test_a_phase_is_a_part_of_its_parents_step():
    phases = {"all": (None, 4, 1), "part": ("all", 2, 1)}
    assert progress_of(phases, "part") == (1 + 1 / 2) / 4
    assert progress_of(phases, "all") == 1 / 4
    assert progress_of(phases, None) == 0


def test_cancelled_build_is_told_to_stop():
    monitor = monitor_of(trt, lambda percent: None)
    monitor.phase_start("all", None, 2)
    assert monitor.step_complete("all", 0)
    monitor.cancel()
    assert not monitor.step_complete("all", 1)


def test_log_goes_to_python_and_errors_are_kept(caplog):
    caplog.set_level(logging.DEBUG)
    log, severity = make_log(trt, warnings=logging.INFO), trt.ILogger.Severity
    log.log(severity.WARNING, "slow")
    log.log(severity.INFO, "news")
    log.log(severity.ERROR, "no\nkernel")
    log.log(severity.INTERNAL_ERROR, "[x::catchCudaError::1] no driver")
    log.log(severity.ERROR, "no\nkernel")
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels["tensorrt_rtx: slow"] == "INFO"
    assert levels["tensorrt_rtx: news"] == "DEBUG"
    assert log.lines == ["no kernel", "[x::catchCudaError::1] no driver", "no kernel"]
    assert str(failure(log, "x: cannot build", "cure")) == "x: cannot build: no kernel; cure"


def test_failure_without_a_reason():
    assert (
        str(failure(make_log(trt, warnings=logging.INFO), "x", "cure"))
        == "x: TensorRT gave no reason; cure"
    )
