"""naming: the points that a graph gives are what the pack makes of its landmarks."""

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from lmk.runtime.errors import UserError
from lmk.runtime.model.composition import compose_file, contract_of
from lmk.runtime.model.probe import probe_crops, run_onnx
from lmk.runtime.model.template import OFFSET, WEIGHT, compose, shares
from lmk.runtime.model.weights import digest
from lmk.runtime.runners.ort import OrtRunner

NAMES = ("l_eye", "r_eye", "nose", "chin")


def named(pack, header, seed=0, count=4):
    """The pack with `count` points."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(1 / 3, 1, (count, 3))
    weight /= weight.sum(axis=1, keepdims=True)
    tensors = {WEIGHT: weight, OFFSET: rng.uniform(-9, 9, (count, 2))}
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    names = [f"point {index}" for index in range(count)]
    return pack | tensors, header | {"landmark_names": names, "naming": {"ridge": 0.1}}


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it makes anew each time
)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6))
def test_points_and_scores_follow_from_the_landmarks(toy_template, toy_core, toy_pack, seed, count):
    plain, header = toy_pack()
    pack, header = named(plain, header, seed, count)
    model = compose(toy_template, toy_core, pack, header, "pack")
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    found, scores = run_onnx(
        compose(toy_template, toy_core, plain, toy_pack()[1], "pack"), probe_crops(64)
    )
    points, their_scores = run_onnx(model, probe_crops(64))
    expected = np.einsum("mk,nka->nma", pack[WEIGHT], found) + pack[OFFSET]
    scale = 1 + np.abs(expected).max()  # of the toy, whose landmarks may be anywhere
    np.testing.assert_allclose(points, expected, atol=1e-5 * scale)
    share = shares(pack[WEIGHT]).T
    np.testing.assert_allclose(their_scores, scores @ share, atol=1e-5 * np.abs(scores).max())


def test_a_score_counts_by_what_its_landmark_moves():
    part = shares(np.array([[1.5, -0.5, 0.0], [0.2, 0.3, 0.5]]))
    np.testing.assert_allclose(part, [[0.75, 0.25, 0], [0.2, 0.3, 0.5]])


def test_the_contract_says_the_points(toy_pack):
    pack, header = named(*toy_pack())
    header |= {"core_sha256": "c", "sha256": digest(pack)}
    contract = contract_of(header, "fp32", {})
    assert contract.num_landmarks == 4 and contract.landmark_names[3] == "point 3"


def test_composed_on_first_use_and_checked(shipped, toy_pack, tmp_path):
    extra = named(*toy_pack())

    def edit(pack):
        pack |= {name: extra[0][name] for name in (WEIGHT, OFFSET)}

    more = {"landmark_names": NAMES, "naming": extra[1]["naming"]}
    path = shipped(tmp_path / "toys-named.safetensors", probed=False, edit=edit, **more)
    compose_file(path, tmp_path / "toys-named.onnx")
    with OrtRunner(tmp_path / "toys-named.onnx", threads=1) as runner:
        assert runner.contract.landmark_names == NAMES
        landmarks, scores = runner(probe_crops(64))
    assert landmarks.shape == (4, 4, 2) and scores.shape == (4, 4)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda p, h: p.pop(OFFSET), "tensor 'naming.offset' is missing"),
        (lambda p, h: h.pop("naming"), "tensor 'naming.offset' is unexpected"),
        (
            lambda p, h: h.update(landmark_names=["a"]),
            r"'naming.weight' has shape \(4, 3\), expected \(1, 3\); name the points again",
        ),
        (
            lambda p, h: p.update({OFFSET: np.zeros((4, 3), np.float32)}),
            r"'naming.offset' has shape \(4, 3\), expected \(4, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(toy_template, toy_core, toy_pack, edit, complaint):
    pack, header = named(*toy_pack())
    edit(pack, header)
    with pytest.raises(UserError, match=f"^pack: .*{complaint}"):
        compose(toy_template, toy_core, pack, header, "pack")
