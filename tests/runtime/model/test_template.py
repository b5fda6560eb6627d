"""template: core + pack -> the model, in numpy; and what does not fit is named."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lmk.runtime.errors import UserError
from lmk.runtime.model.probe import probe_crops, run_onnx
from lmk.runtime.model.template import compose, pack_tensors


def initializers(model):
    graph = onnx.load_from_string(model).graph
    return {i.name.removeprefix("network."): numpy_helper.to_array(i) for i in graph.initializer}


def typed(template, dtype):
    weights = tuple(type(w)(**{**vars(w), "dtype": dtype}) for w in template.weights)
    return type(template)(**{**vars(template), "weights": weights})


def test_a_complete_file_that_runs(toy_template, toy_core, toy_pack):
    model = compose(toy_template, toy_core, *toy_pack(), "pack")
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    landmarks, scores = run_onnx(model, probe_crops(64))
    assert landmarks.shape == (4, 3, 2) and np.isfinite(scores).all()


def test_weights_are_rounded_once(toy_template, toy_core, toy_pack):
    pack, header = toy_pack()
    found = initializers(compose(toy_template, toy_core, pack, header, "pack"))
    exact = {name: value.astype(np.float64) for name, value in {**toy_core, **pack}.items()}
    theta, w = exact["block1.conv1.weight"], exact["block1.conv1.projection"]
    expected = np.einsum("po,oihw->pihw", w, theta).astype(np.float32)
    np.testing.assert_array_max_ulp(found["block1.conv1.weight"], expected, maxulp=1)
    factor = exact["bn_first.weight"] / np.sqrt(exact["bn_first.running_var"] + 1e-5)
    w = exact["conv_first.projection"]
    weight = np.einsum("p,po,oihw->pihw", factor, w, exact["conv_first.weight"])
    bias = (w @ exact["conv_first.bias"] - exact["bn_first.running_mean"]) * factor
    bias += exact["bn_first.bias"]
    np.testing.assert_array_max_ulp(found["conv_first.weight"], weight.astype(np.float32), 1)
    np.testing.assert_array_max_ulp(found["conv_first.bias"], bias.astype(np.float32), 1)
    for name in ("head.weight", "head.bias", "block1.bn1.running_var"):
        assert np.array_equal(found[name], pack[name]), name  # the pack's, not the core's


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_to_nearest(toy_template, toy_core, toy_pack, dtype):
    single = initializers(compose(toy_template, toy_core, *toy_pack(), "pack"))
    half = compose(typed(toy_template, dtype), toy_core, *toy_pack(), "pack")
    for name, value in initializers(half).items():
        if name not in ("form", "last"):
            assert value.dtype.name == dtype
            assert np.array_equal(value, single[name].astype(value.dtype)), name


def test_what_float16_cannot_hold(toy_template, toy_core, toy_pack):
    pack, header = toy_pack()
    pack["block1.bn1.running_var"][2] = 1e5
    with pytest.raises(UserError, match=r"'block1.bn1.running_var' holds 1e\+05, .* float16"):
        compose(typed(toy_template, "float16"), toy_core, pack, header, "pack")


def test_half_precision_matrices_in_the_files(toy_template, toy_core, toy_pack):
    """What ships is stored in halves; it counts as those numbers, exactly."""
    pack, header = toy_pack()
    halves = [{n: v.astype(np.float16) for n, v in each.items()} for each in (toy_core, pack)]
    singles = [{n: v.astype(np.float32) for n, v in each.items()} for each in halves]
    models = {compose(toy_template, *each, header, "pack") for each in (halves, singles)}
    assert len(models) == 1


def test_names_by_scope(toy_template, toy_pack):
    header = toy_pack()[1]
    stem = {"conv_first.weight", "conv_first.bias"}
    everything = pack_tensors(toy_template, header)
    assert everything == toy_pack()[0].keys()
    blocks = pack_tensors(toy_template, header | {"scope": "blocks"})
    assert blocks == everything - {"conv_first.projection"}
    released = header | {"scope": "blocks", "train_plain_convs": True}
    assert pack_tensors(toy_template, released) == blocks | stem
    finetune = pack_tensors(toy_template, header | {"method": "finetune"})
    plain = {name for name in everything if not name.endswith("projection")}
    assert finetune == plain | stem | {"block1.conv1.weight"}


DAMAGE = {
    "missing": (lambda p, c: p.pop("head.bias"), r"tensor 'head\.bias' is missing"),
    "unexpected": (lambda p, c: p.update(more=np.zeros(1)), "tensor 'more' is unexpected"),
    "shape": (
        lambda p, c: p.update({"head.bias": np.zeros(3, np.float32)}),
        r"'head\.bias' has shape \(3,\), expected \(6,\)",
    ),
    "projection": (
        lambda p, c: p.update({"conv_first.projection": np.eye(3, dtype=np.float32)}),
        r"'conv_first\.projection' has shape \(3, 3\), expected \(4, 4\)",
    ),
    "core": (lambda p, c: c.pop("conv_first.bias"), r"its core has no tensor 'conv_first\.bias'"),
}


@pytest.mark.parametrize(("edit", "complaint"), DAMAGE.values(), ids=DAMAGE)
def test_what_does_not_fit_is_named(toy_template, toy_core, toy_pack, edit, complaint):
    (pack, header), core = toy_pack(), dict(toy_core)
    edit(pack, core)
    with pytest.raises(UserError, match=f"^shoes.safetensors: .*{complaint}"):
        compose(toy_template, core, pack, header, "shoes.safetensors")


def test_another_architecture(toy_template, toy_core, toy_pack):
    pack, header = toy_pack()
    header["network"] = header["network"] | {"width": 32}
    with pytest.raises(UserError, match="'width': 32.*expected the template's .*'width': 16"):
        compose(toy_template, toy_core, pack, header, "pack")
