"""Metadata: what is written is what is read."""

import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import Contract, default_names


def _contract():
    drift = {"max_px": 0.001}
    return Contract("shoes", 2, 128, "fp32", "c", "p", default_names(2), 1.2, drift)


def test_round_trip():
    assert Contract.from_metadata(_contract().to_metadata(), "f.onnx") == _contract()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmk.input_size": "many"}, "'lmk.input_size' is not JSON"),
        ({"lmk.format": "99"}, "got format 99, expected at most 1; upgrade"),
        ({"lmk.landmark_names": '["p0"]'}, "1 landmark names for 2 landmarks"),
        ({"lmk.input_size": '"128"'}, "'lmk.input_size' got '128'"),
        ({"lmk.landmark_names": "null"}, "'lmk.landmark_names' got None"),
        ({"lmk.precision": '"fp12"'}, "got precision 'fp12', expected one of fp32, fp16, bf16, "),
    ],
)
def test_malformed_metadata_is_named(change, message):
    with pytest.raises(UserError, match=f"f.onnx: .*{message}"):
        Contract.from_metadata(_contract().to_metadata() | change, "f.onnx")
