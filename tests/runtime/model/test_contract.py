"""Metadata: what is written is what is read."""

from dataclasses import replace

import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import Contract, default_names
from lmk.runtime.regions import Acceptance, Finding


def _contract():
    drift = {"max_px": 0.001}
    return Contract("shoes", 2, 128, "fp32", "c", "p", default_names(2), 1.2, drift)


def test_round_trip():
    assert Contract.from_metadata(_contract().to_metadata(), "f.onnx") == _contract()
    told = Acceptance(0.4, 0.02, 0.2, (1.5,))
    found = replace(
        _contract(), finding=Finding("motion", 2).to_json(), acceptance=told.to_json(), following=1
    )
    read = Contract.from_metadata(found.to_metadata(), "f.onnx")
    assert read == found and Finding.from_json(read.finding) == Finding("motion", 2)
    assert Acceptance.from_json(read.acceptance) == told and read.given_names == ("p0",)


def test_files_of_before_say_less():
    metadata = _contract().to_metadata()
    for name in ("finding", "acceptance", "following"):
        del metadata[f"lmk.{name}"]
    assert Contract.from_metadata(metadata, "f.onnx") == _contract()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmk.input_size": "many"}, "'lmk.input_size' is not JSON"),
        ({"lmk.format": "99"}, "got format 99, expected at most 2; upgrade"),
        ({"lmk.landmark_names": '["p0"]'}, "1 landmark names for 2 landmarks"),
        ({"lmk.format": "0"}, "'format': got 0, expected a whole number from 1 to 2"),
        ({"lmk.crop_scale": "NaN"}, "'crop_scale': got nan, expected a number over 0, at most 100"),
        ({"lmk.landmark_names": '["p0", "p0"]'}, "'landmark_names': .*, expected names that diff"),
        ({"lmk.landmark_names": '["p0", "p\\n1"]'}, "'landmark_names': .*that can be printed"),
        ({"lmk.num_landmarks": "true"}, "'num_landmarks': got True, expected a whole number"),
        ({"lmk.drift": "[" * 100_000}, "'lmk.drift' is not JSON .maximum recursion depth"),
        ({"lmk.finding": '{"way": "magic"}'}, "'finding': got .*'magic'.*, expected how objects"),
        ({"lmk.finding": '{"sight": 1}'}, "'finding': got .*'sight': 1.*, expected how objects"),
        ({"lmk.acceptance": '{"score": -1}'}, "'acceptance': got .*-1.*, expected what an object"),
        ({"lmk.acceptance": '{"weights": [1]}'}, "weights of other than 2 landmarks"),
        ({"lmk.following": "2"}, "got 2 of 2 landmarks for following, expected others too"),
        ({"lmk.input_size": '"128"'}, "'input_size': got '128', expected a whole number from 1"),
        ({"lmk.landmark_names": "null"}, "'landmark_names': got None, expected names that differ"),
        (
            {"lmk.precision": '"fp12"'},
            "'precision': got 'fp12', expected one of fp32, fp16, ",
        ),
    ],
)
def test_malformed_metadata_is_named(change, message):
    with pytest.raises(UserError, match=f"f.onnx: .*{message}"):
        Contract.from_metadata(_contract().to_metadata() | change, "f.onnx")
