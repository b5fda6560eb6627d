"""template: a graph without weights that any category of the architecture can fill."""

import copy
import dataclasses

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from lmk.export.graph import template as module
from lmk.export.graph.half import halve
from lmk.export.graph.pack import export_pack
from lmk.export.graph.template import (
    fill,
    make_template,
    template_of,
    with_landmarks,
    without_folded_norms,
    write_template,
)
from lmk.export.graph.trace import fold, to_onnx, trace
from lmk.export.graph.verify import randomised, run_eager, run_onnx
from lmk.runtime.errors import UserError
from lmk.runtime.model import workspace
from lmk.runtime.model.probe import LIMITS_PX, check
from lmk.runtime.model.template import compose, pack_tensors, read_template, stamp
from lmk.runtime.model.weights import read_weights
from lmk.train.network.category import category_state, halve_pack, load_pack, new_category
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork

PROJECTION = {"method": "projection", "scope": "all", "train_plain_convs": False}
VARIANTS = {
    "projection": ("projection", "all", False),
    "blocks": ("projection", "blocks", False),
    "released": ("projection", "blocks", True),
    "finetune": ("finetune", "all", False),
    "finetune-last": ("finetune-last", "all", False),
    "projection+finetune": ("projection+finetune", "all", False),
    "scratch": ("scratch", "all", False),
}


def header_of(variant):
    return dict(zip(PROJECTION, VARIANTS[variant], strict=True))


def composed(pack_path, core_path, template):
    pack, header = read_weights(pack_path, "pack")
    return compose(template, read_weights(core_path, "core")[0], pack, header, "pack")


def test_filled_it_finds_what_the_network_does(template, adapted, crops):
    landmarks, _ = run_onnx(fill(template, adapted, PROJECTION), crops)
    np.testing.assert_allclose(landmarks, run_eager(adapted, crops)[0], atol=0.01)


@pytest.mark.parametrize("variant", VARIANTS)
def test_packs_of_every_method(template, core, crops, variant):
    model = new_category(header_of(variant)["method"], core, 5, *VARIANTS[variant][1:])
    assert pack_tensors(template, header_of(variant)) == category_state(model).keys()
    random = randomised(model, crops, seed=5)
    landmarks, _ = run_onnx(fill(template, random, header_of(variant)), crops)
    np.testing.assert_allclose(landmarks, run_eager(random, crops)[0], atol=0.01)


def test_files_make_what_an_export_makes(template, make_pack, core_path, tmp_path):
    """Byte for byte, of a second category too, and of half precision files."""
    for seed in (3, 4):
        path = make_pack(tmp_path / f"{seed}.safetensors", seed=seed)
        halve_pack(path, core_path, tmp_path / "half.safetensors")
        for pack in (path, tmp_path / "half.safetensors"):
            model, header = load_pack(pack, core_path)
            made = composed(pack, core_path, template)
            assert made == fill(template, model, header)
            assert onnx.load_from_string(made).SerializeToString() == made


def test_an_export_is_the_composed_file(exported, pack_path, core_path, template):
    path, contract = exported
    assert path.read_bytes() == stamp(composed(pack_path, core_path, template), contract)


def test_the_probe_of_a_pack_verifies_the_composed_model(template, pack_path, core_path, tmp_path):
    """Halved weights have a probe of their own: they find other points than the whole ones."""
    half = tmp_path / "half.safetensors"
    halve_pack(pack_path, core_path, half)
    probes = {path: read_weights(path, "pack")[1]["probe"] for path in (pack_path, half)}
    names = [f"p{i}" for i in range(5)]
    for path, probe in probes.items():
        report = check(composed(path, core_path, template), probe, 64, names, "pack")
        assert report["max_px"] < 0.01
    moved = np.array(probes[half]["landmarks"]) - np.array(probes[pack_path]["landmarks"])
    assert np.abs(moved).max() > 0.01
    with pytest.raises(UserError, match="landmark 'p.': got a drift of"):
        check(composed(half, core_path, template), probes[pack_path], 64, names, "pack")


def test_it_holds_no_weights(template):
    graph = onnx.GraphProto.FromString(b"".join(template.graph))
    assert graph.node and all(np.prod(i.dims, dtype=int) <= 32 for i in graph.initializer)
    assert not any(i.name.startswith("network.") for i in graph.initializer)
    assert len(template.weights) == len({w.name for w in template.weights}) > 250


@pytest.fixture(scope="module")
def plain_program():
    """The trace that templates of this size are made of."""
    network = LandmarkNetwork(HourglassConfig(5, width=16, input_size=64)).eval()
    return trace(without_folded_norms(network))


@pytest.fixture
def same_program(plain_program, monkeypatch):
    """Let `make_template` take the shared trace instead of seconds for its own."""
    monkeypatch.setattr(module, "trace", lambda network: plain_program)


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def half(request, plain_program):
    """A precision of halves and the template in it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "trace", lambda network: plain_program)
        return request.param, make_template(HourglassConfig(5, 16, 64), request.param)


def test_it_comes_back_from_its_file(template, half, tmp_path):
    for precision, typed in (("fp32", template), half):
        path = write_template(typed, tmp_path)
        assert path.name == f"template-16-64-5-{precision}.safetensors"
        assert read_template(path) == typed
        assert path.stat().st_size < 120_000
        dtypes = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
        assert {weight.dtype for weight in typed.weights} == {dtypes[precision]}
    recipe = [dataclasses.replace(weight, dtype="float32") for weight in half[1].weights]
    assert recipe == list(template.weights)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated or not safetensors"):
        read_template(path)


def test_half_precision_is_that_of_an_export(half, template, make_pack, core_path, tmp_path):
    """Byte for byte, of a second category too: an export fills in fp32, then rounds."""
    precision, typed = half
    for seed in (3, 4):
        pack = make_pack(tmp_path / f"{seed}.safetensors", seed=seed)
        single = onnx.load_from_string(composed(pack, core_path, template))
        assert composed(pack, core_path, typed) == halve(single, precision).SerializeToString()


def test_an_export_in_half_precision_is_the_composed_file(
    half, same_trace, pack_path, core_path, crops, tmp_path, monkeypatch
):
    precision, typed = half
    monkeypatch.setitem(LIMITS_PX, precision, {"mean": 20.0})  # random weights drift as they like
    output = tmp_path / "out.onnx"
    contract = export_pack(pack_path, core_path, output, crops[:1], precision=precision)
    assert output.read_bytes() == stamp(composed(pack_path, core_path, typed), contract)


def test_for_another_number_of_landmarks_it_is_what_a_trace_gives(template, same_program):
    assert (
        template.network["num_landmarks"] == 5
        and make_template(HourglassConfig(5, 16, 64)) == template
    )
    assert with_landmarks(with_landmarks(template, 23), 5) == template


def test_a_network_without_blocks_on_its_skips_has_a_template_of_its_own(crops, tmp_path):
    network = HourglassConfig(5, 16, 64, skips=False)
    model, made = randomised(LandmarkNetwork(network).eval(), crops), make_template(network)
    path = write_template(made, tmp_path)
    assert path.name == "template-16-lean-64-5-fp32.safetensors" and read_template(path) == made
    landmarks, _ = run_onnx(fill(made, model, {**PROJECTION, "method": "scratch"}), crops)
    np.testing.assert_allclose(landmarks, run_eager(model, crops)[0], atol=0.01)


def test_one_that_ships_or_was_made_before_is_taken(template, tmp_path, monkeypatch):
    network = HourglassConfig(5, 16, 64)
    for_any = (dataclasses.replace(network, num_landmarks=10),)
    of_ten = with_landmarks(template, 10)
    traced = []
    monkeypatch.setattr(module, "make_template", lambda *of: traced.append(of) or of_ten)
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    assert template_of(network) == template_of(network) == template and traced == [for_any]
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-9])  # damaged
    assert template_of(network) == template and traced == 2 * [for_any]
    monkeypatch.setattr(module, "_LIBRARIES", ("torch",))
    assert template_of(network) == template and len(traced) == 3  # by others

    monkeypatch.setenv("LMK_CACHE", str(kept))
    with pytest.raises(UserError, match="template: .*LMK_CACHE names another folder"):
        template_of(network)
    monkeypatch.setattr(workspace, "ZOO", kept.parent)
    assert template_of(network) == template and len(traced) == 3


def test_integers_have_no_template():
    with pytest.raises(UserError, match="got precision int8, .* each category's own images"):
        make_template(HourglassConfig(5, 16, 64), "int8")


def test_an_optimiser_that_changes_weights_is_noticed(same_program, monkeypatch):
    def doubling(program, network):
        model = to_onnx(program, network)
        for tensor in model.graph.initializer:
            if tensor.name == "network.top.conv2.weight":
                tensor.raw_data = (numpy_helper.to_array(tensor) * 2).tobytes()
        return model

    monkeypatch.setattr(module, "to_onnx", doubling)
    with pytest.raises(RuntimeError, match=r"'top\.conv2\.weight' is not in the graph as it is"):
        make_template(HourglassConfig(5, 16, 64))


def test_a_weight_that_is_merged_away_is_noticed(same_program, monkeypatch):
    monkeypatch.setattr(module, "_random", lambda network: network)  # all batch-norms are alike
    with pytest.raises(RuntimeError, match=r"template: '.*bn.*' is not in the graph"):
        make_template(HourglassConfig(5, 16, 64))


def test_command(template, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(module, "make_template", lambda *of: asked.append(of) or template)
    options = ["--width", "16", "--input-size", "64", "--landmarks", "5"]
    done = CliRunner().invoke(module.main, [*options, "--output", str(tmp_path)])
    assert done.output.strip() == str(tmp_path / "template-16-64-5-fp32.safetensors")
    CliRunner().invoke(module.main, [*options, "--output", str(tmp_path), "--precision", "bf16"])
    assert asked == [(HourglassConfig(5, 16, 64), precision) for precision in ("fp32", "bf16")]


def test_the_network_is_untouched(template, adapted):
    before = copy.deepcopy(adapted.state_dict())
    fill(template, adapted, PROJECTION)
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
    assert not any(
        isinstance(m, torch.nn.Identity) for m in [adapted.bn_first, fold(adapted).bn_last]
    )
