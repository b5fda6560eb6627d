"""Engine file -> engine: other weights in it, and one line for whatever does not fit."""

import dataclasses
import inspect
import logging
import sys

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.model import probe
from lmk.runtime.runners.trt import TrtRunner
from lmk.runtime.runners.trt_engine import make_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "blob.engine"


@pytest.fixture
def runner(path, library):
    with TrtRunner(library.write_file(path)) as opened:
        yield opened


@pytest.fixture
def other(runner):
    """The contract of another category with the same core."""
    return dataclasses.replace(runner.contract, category="cats", pack_sha256="q" * 64)


def _probe(library, gain, count=2):
    return probe.record(*library.find(probe.probe_crops(16, count), gain))


def test_refit_makes_it_the_other_category(runner, library, other):
    crops = probe.probe_crops(16, 5)
    runner(crops)
    drift = runner.refit(b"2.0", other, _probe(library, 2.0))
    assert drift is not None and drift < 1e-3
    assert runner.contract.category == "cats"
    np.testing.assert_array_equal(runner(crops)[0], library.find(crops, 2.0)[0])
    assert runner.refit(b"3.0", other) is None
    np.testing.assert_array_equal(runner(crops)[0], library.find(crops, 3.0)[0])


def test_refit_that_does_not_find_the_probe_closes_the_runner(runner, gpu, library, other):
    runner(probe.probe_crops(16, 5))
    complaint = r"blob.engine: refit to 'cats': landmark '(red|green|blue)': got a drift of .* own$"
    with pytest.raises(UserError, match=complaint):
        runner.refit(b"2.0", other, _probe(library, 1.9))
    assert not gpu.live
    with pytest.raises(ValueError, match="after close"):
        runner(probe.probe_crops(16))


def test_the_probe_of_half_precision_has_the_limits_of_an_export(path, library, other):
    probe = _probe(library, 2.0, count=4)
    half = dataclasses.replace(other, precision="fp16")
    with TrtRunner(library.write_file(path, contract={"precision": "fp16"})) as runner:
        assert 0.01 < runner.refit(b"2.0004", half, probe) < 0.1  # points are near 256
        with pytest.raises(
            UserError, match=r"\(mean\), expected at most 0\.1 px; export that pack"
        ):
            runner.refit(b"2.002", half, probe)


def test_refit_that_fails_half_way_closes_the_runner(runner, gpu, library, other, monkeypatch):
    runner(probe.probe_crops(16, 5))
    monkeypatch.setattr(library.Refitter, "refit_cuda_engine", lambda self: False)
    with pytest.raises(UserError, match=r"cannot change its weights \(.*gave no reason\); load it"):
        runner.refit(b"2.0", other)
    assert not gpu.live


def test_weights_that_do_not_fit_change_nothing(runner, library, other):
    message = r"got weights that do not fit \(could not .* float.*\), expected those of the graph"
    with pytest.raises(UserError, match=message):
        runner.refit(b"a model of another graph", other)
    crops = probe.probe_crops(16)
    assert runner.contract.category == "blob"
    np.testing.assert_array_equal(runner(crops)[0], library.find(crops)[0])


def test_refit_to_another_precision_and_of_fixed_weights(runner, library, other):
    with pytest.raises(UserError, match="refit to 'cats': got precision fp16, expected fp32"):
        runner.refit(b"2.0", dataclasses.replace(other, precision="fp16"))
    library.engines[0].refittable = False
    message = "got an engine whose weights are fixed, .* `lmk export PACK --engine rtx --refit`"
    with pytest.raises(UserError, match=message):
        runner.refit(b"2.0", other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"library_version": "1.6.0", "targets": ("12.0",)},
            "got an engine built by version 1.6.0, expected 1.7.1, and built for compute "
            "capability 12.0, expected 8.6; build one here with `lmk export PACK --engine rtx`",
        ),
        ({"gpu": "RTX 9090"}, "got an engine built for RTX 9090, expected Fake GPU"),
        ({}, "cannot load it here: it says 'odd plan, line two'; build one here"),
    ],
    ids=["version and capability", "gpu", "damage"],
)
def test_engine_that_the_library_refuses(path, library, changes, message):
    library.refusal = "odd plan,\nline two"
    with pytest.raises(UserError, match=message):
        TrtRunner(library.write_file(path, **changes))


def test_library_that_is_missing(path, library, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(UserError, match="tensorrt_rtx: .* pip install tensorrt-rtx==1.7.1"):
        TrtRunner(library.write_file(path))


def test_tensors_that_are_not_the_contracts(path, library):
    library.write_file(path, contract={"num_landmarks": 4, "landmark_names": tuple("abcd")})
    with pytest.raises(UserError, match=r"got tensors .*\[3, 2\].* expected .*\[4, 2\]"):
        TrtRunner(path)


def test_data_centre_library_takes_the_same_path(path, library, monkeypatch):
    strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
    given = []
    make = library.ICudaEngine.create_execution_context
    config = library.IRuntimeConfig()
    config.set_execution_context_allocation_strategy(strategy)
    monkeypatch.setattr(
        library.ICudaEngine,
        "create_execution_context",
        lambda self, rule: given.append(rule) or make(self, config),
    )
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    with TrtRunner(library.write_file(path, library="tensorrt")) as runner:
        runner(probe.probe_crops(16))
        assert given == [strategy] and runner.name.startswith("TensorRT 1.7.1 on")


def test_log_goes_to_pythons(library, caplog):
    log = make_log(library)
    with caplog.at_level(logging.INFO, logger="lmk.runtime.runners.trt_engine"):
        log.log(library.ILogger.Severity.WARNING, "odd")
        log.log(library.ILogger.Severity.ERROR, "two\nlines")
        log.log(library.ILogger.Severity.VERBOSE, "chatter")
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == ["odd"]
    assert log.lines == ["two lines"]


def _public(stand_in):
    return [item for item in vars(stand_in).items() if not item[0].startswith("_")]


def test_the_stand_in_has_the_real_names(library, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    real = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    classes = {
        name: item
        for name, item in _public(library)
        if inspect.isclass(item) and item.__module__ == library.__name__
    }
    methods = {
        f"{name}.{member}": (value, getattr(getattr(real, name), member))
        for name, stand_in in classes.items()
        for member, value in _public(stand_in)
    }
    for name in ("Runtime", "Refitter", "OnnxParserRefitter"):
        methods[name] = (classes[name].__init__, getattr(real, name).__init__)
    for name, (stand_in, actual) in methods.items():
        if inspect.isfunction(stand_in):
            for parameter in list(inspect.signature(stand_in).parameters)[1:]:
                assert f"{parameter}: " in actual.__doc__, f"{name}({parameter})"
