"""Packs: core + pack is the adapted network again, and only with its own core."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmk.runtime.errors import UserError
from lmk.runtime.model.probe import probe_crops
from lmk.runtime.model.weights import HEADER, stamped
from lmk.train.augment import to_pixels
from lmk.train.network import checkpoint
from lmk.train.network.bottleneck import NamingLayer, soft_argmax
from lmk.train.network.category import (
    halve_pack,
    load_pack,
    new_category,
    probe,
    prune_pack,
    save_pack,
    train_mode,
)
from lmk.train.network.checkpoint import load_core, read_header, save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork

VARIANTS = {
    "projection": ("projection", "all", False),
    "blocks": ("projection", "blocks", False),
    "released": ("projection", "blocks", True),
    "finetune": ("finetune", "all", False),
    "finetune-last": ("finetune-last", "all", False),
    "projection+finetune": ("projection+finetune", "all", False),
    "scratch": ("scratch", "all", False),
}


def write(path, model, variant, core_sha256, **more):
    method, scope, plain = variant
    header = {
        "category": "teapots",
        "method": method,
        "scope": scope,
        "train_plain_convs": plain,
        "core_sha256": core_sha256,
        "crop_scale": 1.0,
        "landmark_names": ["p0", "p1", "p2", "p3", "p4"],
        **more,
    }
    save_pack(path, model, header)


@pytest.fixture
def make_pack(core_path, tmp_path):
    """Return a function that writes a pack in which every learnt value has moved."""

    def make(name):
        core, header = load_core(core_path)
        torch.manual_seed(4)
        method, scope, plain = VARIANTS[name]
        model = new_category(method, core, 5, scope, plain).train()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.rand(4, 3, 64, 64)).square().sum().backward()
            optimizer.step()
        path = tmp_path / "teapots.safetensors"
        write(path, model, VARIANTS[name], header["sha256"] if method != "scratch" else "")
        return path, model.eval()

    return make


@pytest.mark.parametrize("name", VARIANTS)
def test_pack_and_core_are_the_network(make_pack, core_path, name):
    path, model = make_pack(name)
    again, header = load_pack(path, None if name == "scratch" else core_path)
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert not again.training and again.config == HourglassConfig(5, 16, 64)
    assert header["category"] == "teapots" and header["crop_scale"] == 1.0


@pytest.mark.parametrize("name", VARIANTS)
def test_what_starts_from_the_core(core_path, name):
    """finetune and projection start as the core does, scratch does not; all have a new head."""
    core, _ = load_core(core_path)
    method, scope, plain = VARIANTS[name]
    model = new_category(method, core, 14, scope, plain).eval()
    assert not torch.equal(model.head.weight, core.head.weight)
    model.head.load_state_dict(core.head.state_dict())
    images = torch.rand(2, 3, 64, 64)
    same = torch.allclose(model(images), core(images), atol=1e-5)
    assert same is (method != "scratch")
    share = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in core.parameters())
    assert (share == everything) is (method not in ("projection", "finetune-last"))


def test_a_halved_pack_is_nearly_the_network(make_pack, core_path, tmp_path):
    path, model = make_pack("projection")
    halve_pack(path, core_path, tmp_path / "half.safetensors")
    again, _ = load_pack(tmp_path / "half.safetensors", core_path)
    images = torch.rand(3, 3, 64, 64)
    assert (again(images) - model(images)).abs().max() < 0.02 * model(images).abs().max()


def test_size_on_disk(tmp_path):
    core = LandmarkNetwork(HourglassConfig(16))
    save_core(tmp_path / "core.safetensors", core, {})
    model = new_category("projection", core, 10)
    sha256 = read_header(tmp_path / "core.safetensors")["sha256"]
    write(tmp_path / "pack.safetensors", model, VARIANTS["projection"], sha256)
    halve_pack(*(tmp_path / f"{name}.safetensors" for name in ("pack", "core", "half")))
    sizes = {p.stem: p.stat().st_size / 1e6 for p in tmp_path.iterdir()}
    assert sizes["core"] == pytest.approx(25.1, abs=0.3)
    assert sizes["pack"] == pytest.approx(2.3, abs=0.1)
    assert sizes["half"] == pytest.approx(1.2, abs=0.1)


def test_core_and_pack_that_do_not_fit(make_pack, core, core_path, tmp_path):
    path, _ = make_pack("projection")
    core.head.bias.data += 1
    other = tmp_path / "other.safetensors"
    save_core(other, core, {})
    got, expected = read_header(other)["sha256"], read_header(path)["core_sha256"]
    for pack, given, complaint in (
        (path, other, f"got core .*{got}.*expected .*{expected}"),
        (path, None, "needs the core .*--core"),
        (path, path, "got a category pack .*, expected a core"),
        (core_path, core_path, "got a core .*, expected a category pack"),
    ):
        with pytest.raises(UserError, match=complaint):
            load_pack(pack, given)


def test_a_pack_without_a_weight(make_pack, core_path):
    path, _ = make_pack("projection")
    tensors, header = load_file(path), read_header(path)
    del tensors["head.bias"]
    header["sha256"] = checkpoint.digest(tensors)
    save_file(tensors, path, metadata={HEADER: json.dumps(stamped(header))})
    with pytest.raises(UserError, match=rf"{path}: .*'head\.bias' is missing"):
        load_pack(path, core_path)


def test_finetune_last_moves_only_what_follows_the_hourglass(core):
    model = new_category("finetune-last", core, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_mode(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(torch.rand(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    moved = {
        name.split(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"top", "conv_last", "bn_last", "head"}


def test_a_pack_says_what_it_finds_in_the_probe_crops(make_pack, core_path, tmp_path):
    path, model = make_pack("projection")
    stored = read_header(path)["probe"]
    images = torch.from_numpy(probe_crops(64)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        points = to_pixels(soft_argmax(model(images)))
    torch.testing.assert_close(torch.tensor(stored["landmarks"]), points, atol=1e-3, rtol=0)
    half = tmp_path / "half.safetensors"
    halve_pack(path, core_path, half)
    assert read_header(half)["probe"] == probe(load_pack(half, core_path)[0]) != stored


def test_the_probe_leaves_the_network_as_it_is(core):
    model = new_category("projection", core, 5).train().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert len(probe(model)["landmarks"][0]) == 5
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_that_goes_on_writes_no_probe(core, tmp_path):
    path = tmp_path / "pack.safetensors"
    model = new_category("projection", core, 5)
    write(path, model, VARIANTS["projection"], "", finished=False)
    assert "probe" not in read_header(path)
    write(path, model, VARIANTS["projection"], "", finished=True)
    assert "probe" in read_header(path)


def test_a_pruned_pack_finds_what_stays_and_the_middle_of_what_is_merged(core_path, tmp_path):
    core, header = load_core(core_path)
    model = new_category("projection", core, 5).eval()
    torch.nn.init.normal_(model.head.weight)
    pack, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    names = ("a", "b", "c", "d", "e")
    facts = {"category": "a", "method": "projection", "scope": "all", "train_plain_convs": False}
    facts |= {"core_sha256": header["sha256"], "crop_scale": 1.0, "landmark_names": names}
    told = {"score": 0.5, "error": 0.01, "radius": 0.2, "weights": [1.0, 0.2, 1.2, 0.6, 2.0]}
    save_pack(pack, model, facts | {"acceptance": told})
    assert prune_pack(pack, core_path, output, ["b"], [("a", "e")]) == ("a", "c", "d")
    pruned, told = load_pack(output, core_path)
    assert told["landmark_names"] == ["a", "c", "d"] and told["network"]["num_landmarks"] == 3
    assert told["pruned"]["merge"] == [["a", "e"]] and "probe" in told
    assert told["acceptance"]["weights"] == [1.5, 1.2, 0.6]
    images = torch.rand(2, 3, core.config.input_size, core.config.input_size)
    with torch.inference_mode():
        before, after = model(images), pruned(images)
    torch.testing.assert_close(after[:, 1:], before[:, 2:4])
    torch.testing.assert_close(after[:, 0], (before[:, 0] + before[:, 4]) / 2)


def test_a_named_pack_is_pruned_of_points_and_keeps_what_it_follows_by(core_path, tmp_path):
    core, header = load_core(core_path)
    model = new_category("projection", core, 3).eval()
    model.naming = NamingLayer.keeping(torch.rand(2, 3), torch.rand(2, 2), 3)
    pack, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    facts = {"category": "a", "method": "projection", "scope": "all", "train_plain_convs": False}
    facts |= {"core_sha256": header["sha256"], "crop_scale": 1.0, "naming": {}, "following": 3}
    save_pack(pack, model, facts | {"landmark_names": ("eye", "nose", "_p0", "_p1", "_p2")})
    assert prune_pack(pack, core_path, output, ["nose"]) == ("eye",)
    pruned, told = load_pack(output, core_path)
    assert told["landmark_names"] == ["eye", "_p0", "_p1", "_p2"] and told["following"] == 3
    torch.testing.assert_close(pruned.naming.weight[1:], torch.eye(3))
    with pytest.raises(UserError, match="'_p0', no landmark, expected of eye, nose"):
        prune_pack(pack, core_path, output, ["_p0"])


@pytest.mark.parametrize(
    ("drop", "merge", "complaint"),
    [
        (["x"], [], "'x', no landmark"),
        (["a", "a"], [], "'a', twice"),
        (["a"], [("a", "b")], "'a', twice"),
        (["a", "b"], [], "all landmarks"),
    ],
)
def test_a_pack_is_pruned_of_what_it_has_and_not_of_all(
    drop, merge, complaint, core_path, tmp_path
):
    core, header = load_core(core_path)
    facts = {"category": "a", "method": "projection", "scope": "all", "train_plain_convs": False}
    facts |= {"core_sha256": header["sha256"], "crop_scale": 1.0, "landmark_names": ("a", "b")}
    pack = tmp_path / "a.safetensors"
    save_pack(pack, new_category("projection", core, 2).eval(), facts)
    with pytest.raises(UserError, match=complaint):
        prune_pack(pack, core_path, tmp_path / "b.safetensors", drop, merge)
    assert not (tmp_path / "b.safetensors").exists()
