"""typed: a precision that holds its limits is exported, another leaves layers out or fails."""

import json

import numpy as np
import onnx
import pytest

from lmk.export.graph import typed, verify
from lmk.export.graph.quantise import calibrate, quantisable
from lmk.export.graph.trace import fold
from lmk.export.graph.typed import costliest, typed_graph
from lmk.export.graph.verify import DriftError, probe_crops
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import default_names

NAMES = default_names(5)


@pytest.fixture(scope="module")
def many():
    return probe_crops(64, 20, seed=6)


@pytest.fixture
def limits(monkeypatch):
    """Return a function that sets the limits of a precision: random weights drift as they like."""
    return lambda precision, **values: monkeypatch.setitem(verify.LIMITS_PX, precision, values)


@pytest.fixture
def make(adapted, onnx_model, many):
    def make(precision, crops=many):
        return typed_graph(adapted, fold(adapted), onnx_model, crops, NAMES, precision)

    return make


def test_fp32_is_the_graph_itself(make, onnx_model, many):
    model, report = make("fp32")
    assert model is onnx_model
    assert report["crops"] == len(many)
    assert report["limits_px"] == {"max": 0.01}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_report(make, limits, precision):
    limits(precision, mean=20.0, p99=80.0)
    model, report = make(precision)
    onnx.checker.check_model(model, full_check=True)
    assert json.loads(json.dumps(report)) == report
    assert report["precision"] == precision
    found = report["pairs"]["eager-emulated"]
    assert 0 < found["mean_px"] <= found["p99_px"] <= found["max_px"] <= report["max_px"]
    assert report["pairs"]["eager-folded"]["max_px"] < 0.01
    if precision in ("int8", "fp8"):
        assert (report["crops"], report["calibration_crops"], report["kept"]) == (10, 10, [])


def test_calibration_and_verification_share_no_crop(make, limits, many, monkeypatch):
    seen = []

    def spy(model, crops):
        seen.append(crops)
        return calibrate(model, crops)

    limits("int8", mean=20.0, p99=80.0)
    monkeypatch.setattr(typed, "calibrate", spy)
    make("int8")
    assert np.array_equal(seen[0], many[::2])


def test_too_few_images(make):
    with pytest.raises(UserError, match=r"int8: got 15 images .* expected 16 or more .* --data"):
        make("int8", probe_crops(64, 15, seed=1))


def test_costly_convolutions_stay_in_fp16(make, limits, onnx_model, monkeypatch):
    every = list(quantisable(onnx_model))
    monkeypatch.setattr(typed, "costliest", lambda *_: every)
    limits("int8", mean=20.0, p99=80.0)
    whole = make("int8")[1]["pairs"]["eager-emulated"]["mean_px"]
    limits("int8", mean=0.9 * whole, p99=80.0)
    model, report = make("int8")
    assert report["kept"] == every[: len(report["kept"])] != []
    assert report["pairs"]["eager-emulated"]["mean_px"] <= 0.9 * whole
    read = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert not read & set(report["kept"])


def test_nothing_holds_an_impossible_limit(make, limits, monkeypatch, onnx_model):
    monkeypatch.setattr(typed, "costliest", lambda *_: list(quantisable(onnx_model)))
    limits("fp8", mean=1e-6)
    with pytest.raises(
        DriftError, match=r"landmark 'p\d': got .* px \(mean\) between eager and emulated.*in fp8"
    ):
        make("fp8")


def test_costliest_come_first(onnx_model, many, monkeypatch):
    """An input whose range is a hundred times too wide costs its convolution most."""
    few = dict(list(quantisable(onnx_model).items())[:6])
    ranges = calibrate(onnx_model, many)
    worst = list(few)[3]
    ranges[few[worst].input[0]] *= 100
    monkeypatch.setattr(typed, "quantisable", lambda model: few)
    ranked = costliest(onnx_model, ranges, many[:4], "int8")
    assert ranked[0] == worst
    assert sorted(ranked) == sorted(few)
