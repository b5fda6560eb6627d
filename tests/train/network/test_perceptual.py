"""Perceptual distances: features of the core or of VGG, frozen, from a file or downloaded."""

import os
import urllib.error
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lmk.runtime.errors import UserError
from lmk.train.adapting.adaptation import adapt
from lmk.train.network.checkpoint import read_header
from lmk.train.network.perceptual import Vgg, core_features, distance

CHANNELS = {"vgg19": (2, 2, 4, 4), "vgg16": (2, 2, 3, 3)}  # convolutions of each block
REAL = "weights/vgg19_conv1_1-conv4_4_fp16.safetensors"
IMAGENET_MEAN = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)


def fake(kind):
    torch.manual_seed(0)
    tensors, inside = {}, 3
    for block, (convs, outside) in enumerate(
        zip(CHANNELS[kind], (64, 128, 256, 512), strict=True), start=1
    ):
        for index in range(1, convs + 1):
            scale = (2 / (9 * inside)) ** 0.5
            tensors[f"conv{block}_{index}.weight"] = scale * torch.randn(outside, inside, 3, 3)
            tensors[f"conv{block}_{index}.bias"] = 0.1 * torch.randn(outside)
            inside = outside
    return tensors


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vgg")
    for kind in CHANNELS:
        half = {name: value.half() for name, value in fake(kind).items()}
        save_file(half, folder / f"{kind}.safetensors")
    return folder


@pytest.mark.parametrize("kind", CHANNELS)
def test_vgg_is_its_convolutions(files, kind):
    """relu1_2, 2_2, 3_3 and 4_3 of RGB 0-255 minus the mean, by hand."""
    path = files / f"{kind}.safetensors"
    tensors = {name: value.float() for name, value in load_file(path).items()}
    images = torch.rand(2, 3, 32, 32)
    x, expected = images * 255 - IMAGENET_MEAN, []
    for block, (convs, kept) in enumerate(zip(CHANNELS[kind], (2, 2, 3, 3), strict=True), start=1):
        for index in range(1, convs + 1):
            name = f"conv{block}_{index}"
            x = F.relu(F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1))
            if index == kept:
                expected.append(x)
        x = F.max_pool2d(x, 2)
    features = Vgg(kind, path)(images)
    assert [f.shape[1] for f in features] == [64, 128, 256, 512]
    for got, want in zip(features, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_without_normalisation_the_image_goes_in_as_it_is(files):
    tensors = fake("vgg19")
    images = torch.rand(1, 3, 16, 16)
    network = Vgg("vgg19", files / "vgg19.safetensors", normalise=False)
    x = images
    for index in (1, 2):
        half = (tensors[f"conv1_{index}.{part}"].half().float() for part in ("weight", "bias"))
        x = F.relu(F.conv2d(x, *half, padding=1))
    torch.testing.assert_close(network(images)[0], x, rtol=1e-3, atol=1e-4)


def test_vgg_is_frozen_and_lets_gradients_through(files):
    network = Vgg("vgg16", files / "vgg16.safetensors")
    assert not any(p.requires_grad for p in network.parameters())
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(network, images, torch.rand(1, 3, 32, 32)).backward()
    assert images.grad.abs().max() > 0


def test_torchvision_weights_expect_imagenet_statistics(monkeypatch):
    layers = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25)  # of vgg19.features
    tensors = fake("vgg19")
    names = sorted({name.split(".")[0] for name in tensors})
    state = {
        f"features.{layer}.{part}": tensors[f"{name}.{part}"]
        for layer, name in zip(layers, names, strict=True)
        for part in ("weight", "bias")
    }
    state["classifier.0.weight"] = torch.zeros(1)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(state)
    )
    network = Vgg("vgg19", None)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    images = torch.rand(1, 3, 16, 16)
    x = (images - mean) / std
    for index in (1, 2):
        x = F.conv2d(x, *(tensors[f"conv1_{index}.{p}"] for p in ("weight", "bias")), padding=1)
        x = F.relu(x)
    torch.testing.assert_close(network(images)[0], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("vgg19", urllib.error.URLError("no route to host")),
        ("vgg16", RuntimeError("invalid hash value")),
    ],
)
def test_no_file_and_no_network_names_both_cures(monkeypatch, kind, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match="--vgg FILE.*--perceptual core") as caught:
        Vgg(kind, None)
    message = str(caught.value)
    assert message.startswith(f"--perceptual {kind}: ")


def test_bad_files(files, tmp_path):
    def complaint(path, kind="vgg19"):
        with pytest.raises(UserError, match="--vgg ") as caught:
            Vgg(kind, path)
        return str(caught.value)

    assert "cannot be read" in complaint(tmp_path / "nothing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((files / "vgg16.safetensors").read_bytes()[:1000])
    assert "cannot be read" in complaint(broken, "vgg16")
    assert "'conv3_4.weight' is missing" in complaint(files / "vgg16.safetensors")
    assert "VGG-19" in complaint(files / "vgg19.safetensors", "vgg16")


def test_adapt_with_vgg_from_a_file(files, adapt_config, butterflies):
    path = files / "vgg19.safetensors"
    config = adapt_config(perceptual="vgg19", vgg=path, steps=1, batch=2)
    adapt(config, butterflies)
    saved = read_header(config.output)["config"]
    assert (saved["perceptual"], saved["vgg"]) == ("vgg19", "vgg19.safetensors")


def test_the_real_vgg19():
    data = os.environ.get("LMK_DATA", Path(__file__).parents[4] / "shared" / "data")
    path = Path(data) / REAL
    if not path.exists():
        pytest.skip(f"no {path}")
    network = Vgg("vgg19", path)
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 8, 8), size=(64, 64), mode="bicubic").clamp(0, 1)
    noisy = (smooth + 0.1 * torch.randn_like(smooth)).clamp(0, 1)
    darker = smooth * (1 - (noisy - smooth).abs().mean() / smooth.mean())  # as far in l1
    assert all(0.01 < (f > 0).float().mean() < 0.9 for f in network(smooth))
    # To the eye, noise is a greater change than a little less light; to the pixels it is not.
    assert distance(network, noisy, smooth) > 2 * distance(network, darker, smooth)


def test_core_features_are_frozen_and_apart(core):
    features = core_features(core.train())
    images = torch.rand(1, 3, 64, 64)
    before = [f.clone() for f in features(images)]
    assert [tuple(f.shape[1:]) for f in before] == [(8, 32, 32), (8, 16, 16), (16, 16, 16)]
    with torch.no_grad():
        core.conv_first.weight.zero_()  # the core goes on to be adapted
    for got, want in zip(features(images), before, strict=True):
        assert torch.equal(got, want)
    assert core.training
    assert all(p.requires_grad for p in core.parameters())
    images.requires_grad_(True)
    features(images)[2].sum().backward()
    assert images.grad.abs().max() > 0


def twice(images):
    return [1 * images, 2 * images]


def test_distance_by_hand():
    got, want = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.2)
    assert distance(twice, got, want, "l1", relative=False) == pytest.approx(0.3 + 0.6)
    assert distance(twice, got, want, "mse", relative=False) == pytest.approx(0.09 + 0.36)
    assert distance(twice, got, want, "l1", relative=True) == pytest.approx(1.5 * 2, rel=1e-4)
    assert distance(twice, got, want, "mse", relative=True) == pytest.approx(2.25 * 2, rel=1e-4)
    assert distance(twice, want, want) == 0


def test_the_target_gets_no_gradient():
    got, want = (torch.rand(1, 3, 4, 4, requires_grad=True) for _ in "ab")
    distance(twice, got, want).backward()
    assert got.grad is not None and want.grad is None
