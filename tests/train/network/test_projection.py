"""The projection: W·theta is the frozen convolution and a 1x1 one, and theta never moves."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmk.train.adapting.objective import pair_losses
from lmk.train.adapting.pairs import PairBatch
from lmk.train.network.generator import Generator
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork
from lmk.train.network.perceptual import core_features
from lmk.train.network.projection import (
    ProjectedConv2d,
    category_state,
    load_category_state,
    mode1_product,
    project,
    with_head,
)

# scope, train_plain_convs -> values in W, trainable values; at width 256 and K=10
COUNTS = {
    ("all", False): (532_480, 550_026),
    ("blocks", False): (380_928, 398_474),
    ("blocks", True): (380_928, 514_698),
}


@pytest.fixture(scope="module")
def full_core():
    return LandmarkNetwork(HourglassConfig(16))


def trainable(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def frozen_buffers(model):
    return {n: b.clone() for n, b in model.named_buffers() if "theta" in n}


@pytest.mark.parametrize(("scope", "plain"), COUNTS)
def test_trainable_set(full_core, scope, plain):
    model = project(full_core, 10, scope, plain)
    parts = trainable(model)
    in_w = sum(p.numel() for name, p in parts.items() if name.endswith("projection"))
    assert (in_w, sum(p.numel() for p in parts.values())) == COUNTS[scope, plain]
    norms = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for part in ("weight", "bias")
    }
    others = parts.keys() - norms - {name for name in parts if name.endswith("projection")}
    plain_convs = {"conv_first.weight", "conv_first.bias", "conv_last.weight", "conv_last.bias"}
    plain_convs |= {"block1.skip.2.weight", "block3.skip.2.weight"}
    assert others == {"head.weight", "head.bias"} | (plain_convs if plain else set())
    assert norms <= parts.keys()
    layers = [m for m in model.modules() if isinstance(m, ProjectedConv2d)]
    assert len(layers) == {"all": 55, "blocks": 51}[scope]
    assert scope == "all" or all(layer.kernel_size == (3, 3) for layer in layers)


@pytest.mark.parametrize("scope", ["all", "blocks"])
def test_identity_reproduces_the_core(core, scope):
    images = torch.rand(3, 3, 64, 64)
    model = project(core, 14, scope).eval()
    model.head.load_state_dict(core.head.state_dict())
    torch.testing.assert_close(model(images), core(images), rtol=1e-5, atol=1e-5)


def test_the_core_is_untouched(core):
    before = copy.deepcopy(core.state_dict())
    model = project(core, 5)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    assert isinstance(core.conv_first, nn.Conv2d)
    assert not isinstance(core.conv_first, ProjectedConv2d)
    assert core.config.num_landmarks == 14 and model.config.num_landmarks == 5
    for name, value in core.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_with_head_trains_everything_and_shares_nothing(core):
    model = with_head(core, 6)
    assert all(p.requires_grad for p in model.parameters())
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 6, 16, 16)
    with torch.no_grad():
        model.conv_first.weight.zero_()
    assert core.conv_first.weight.abs().max() > 0


@pytest.mark.parametrize(("scope", "plain"), COUNTS)
def test_gradients_reach_what_is_trained_and_theta_never_moves(core, scope, plain):
    torch.manual_seed(1)
    model, painter = project(core, 5, scope, plain), Generator(5, 8)
    theta = frozen_buffers(model)
    kept = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    start = {n: p.detach().clone() for n, p in trainable(model).items()}
    optimizer = torch.optim.Adam(trainable(model).values(), lr=1e-2, weight_decay=5e-4)
    for _ in range(3):
        optimizer.zero_grad()
        _loss(model, painter, core).backward()
        optimizer.step()
    for name, parameter in (*model.named_parameters(), *painter.named_parameters()):
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    assert all(p.grad is None for p in core.parameters())
    assert len(theta) == sum(isinstance(m, ProjectedConv2d) for m in model.modules()) + (
        2 if scope == "all" else 0
    )
    for name, value in frozen_buffers(model).items():
        assert torch.equal(value, theta[name]), name
    for name, parameter in model.named_parameters():
        if name in kept:
            assert torch.equal(parameter, kept[name]), name
        else:
            assert not torch.equal(parameter, start[name]), name


def _loss(model, painter, core):
    """The whole loss of adaptation, on pairs that differ by a known shift of three pixels."""

    class Weights:
        equivariance, separation, identity, sigma, norm, relative = 0.3, 1.0, 0.1, 0.5, "l1", True
        off_object, spacing = 0.3, 1.0  # nothing is known of the object

    images = torch.rand(4, 3, 64, 64)
    between = torch.eye(3).repeat(4, 1, 1)
    between[:, 0, 2] = 3.0
    sources = images.roll(3, dims=3)
    model.train(), painter.train()
    looks = core_features(core)
    pair = PairBatch(images, sources, between)
    return sum(pair_losses(model, painter, looks, pair, Weights).values())


@pytest.mark.parametrize(("scope", "plain"), COUNTS)
def test_category_state_is_w_batch_norm_and_head(core, scope, plain):
    state = category_state(project(core, 5, scope, plain))
    assert not any("theta" in name for name in state)
    kinds = {name.rsplit(".", 1)[-1] for name in state}
    assert kinds == {"projection", "weight", "bias", "running_mean", "running_var"}
    norms = {n for n, m in core.named_modules() if isinstance(m, nn.BatchNorm2d)}
    rest = {
        name
        for name in state
        if name.rsplit(".", 1)[0] not in norms and not name.endswith(".projection")
    }
    assert ({"head.weight", "head.bias"} == rest) is not plain
    for norm in norms:
        assert {f"{norm}.{part}" for part in ("weight", "bias", "running_mean")} <= state.keys()


def test_category_state_rebuilds_the_network(core):
    torch.manual_seed(2)
    model = project(core, 5)
    with torch.no_grad():
        for value in category_state(model).values():
            value.add_(0.05 * torch.rand_like(value))
    again = project(core, 5)
    load_category_state(again, category_state(model))
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda s: s.pop("head.bias"), "'head.bias' is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "'extra' is unexpected"),
        (lambda s: s.update({"head.bias": torch.zeros(6)}), r"shape \(6,\), expected \(5,\)"),
    ],
)
def test_category_state_of_another_make(core, damage, complaint):
    model = project(core, 5)
    state = {name: value.clone() for name, value in category_state(model).items()}
    before = {name: value.clone() for name, value in state.items()}
    damage(state)
    with pytest.raises(KeyError, match=complaint):
        load_category_state(model, state)
    for name, value in category_state(model).items():
        assert torch.equal(value, before[name])  # not half loaded


@settings(max_examples=60)
@given(
    inside=st.integers(1, 6),
    outside=st.integers(1, 8),
    kernel=st.sampled_from([1, 2, 3, (1, 3), (5, 3), 7]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "replicate"]),
    after=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_projected_is_the_convolution_then_a_1x1_one(
    inside, outside, kernel, stride, padding, dilation, bias, mode, after, seed
):
    torch.manual_seed(seed)
    conv = nn.Conv2d(
        inside, outside, kernel, stride, padding, dilation, bias=bias, padding_mode=mode
    )
    projected = ProjectedConv2d(conv)
    projected.pays_after = lambda x: after
    with torch.no_grad():
        projected.projection.copy_(torch.randn(outside, outside))
    x = torch.randn(2, inside, 15, 14)
    expected = F.conv2d(conv(x), projected.projection[:, :, None, None])
    torch.testing.assert_close(projected(x), expected, rtol=1e-4, atol=1e-4)
    weight, folded_bias = projected.folded()
    plain = copy.deepcopy(conv)
    with torch.no_grad():
        plain.weight.copy_(weight)
        if bias:
            plain.bias.copy_(folded_bias)
    assert (folded_bias is None) is not bias
    torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=1e-4)


def test_mode1_product_mixes_output_channels():
    theta = torch.arange(12.0).view(2, 3, 2, 1)
    mixed = mode1_product(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), theta)
    assert torch.equal(mixed, torch.stack((theta[0] + theta[1], 2 * theta[1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_w_before_or_after_the_convolution_trains_alike(dtype):
    torch.manual_seed(0)
    layer, x = (
        ProjectedConv2d(nn.Conv2d(48, 64, 3, padding=1, bias=False)),
        torch.randn(2, 48, 9, 9),
    )
    with torch.no_grad():
        layer.projection.add_(0.03 * torch.randn(64, 64))
    target = torch.randn(2, 64, 9, 9)
    found = []
    for after in (False, True):
        layer.pays_after = lambda x, after=after: after
        seen = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            y = layer(seen)
        (y.float() * target).sum().backward()
        found.append((y.detach().float(), seen.grad, layer.projection.grad))
        layer.projection.grad = None
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    for before, after in zip(*found, strict=True):
        assert (before - after).norm() <= tolerance * before.norm()


def test_w_comes_after_where_that_is_quicker():
    x, thin = torch.empty(1, 64, 8, 8), ProjectedConv2d(nn.Conv2d(64, 32, 3))
    wide, pointwise = ProjectedConv2d(nn.Conv2d(64, 64, 3)), ProjectedConv2d(nn.Conv2d(64, 64, 1))
    assert wide.pays_after(x) and thin.pays_after(x) and not pointwise.pays_after(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert wide.pays_after(x) and not thin.pays_after(x)
    assert not wide.pays_after(x.to("meta"))


def test_what_bfloat16_would_lose_of_w_is_kept_after_the_convolution():
    layer = ProjectedConv2d(nn.Conv2d(4, 4, 1, bias=False))
    layer.pays_after = lambda x: True
    with torch.no_grad():
        layer.theta.copy_(torch.eye(4)[:, :, None, None])
        layer.projection.mul_(1 + 2**-10)  # 1 in bfloat16
    x = torch.ones(1, 4, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
        change = layer.projection - torch.eye(4)
    assert change.bfloat16().float().equal(change) and layer.projection.grad.eq(9).all()


def test_weight_is_made_in_float32_under_autocast():
    torch.manual_seed(0)
    layer = ProjectedConv2d(nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        layer.projection.add_(1e-3 * torch.randn(4, 4))  # lost if W·theta were made in bfloat16
    seen = []
    layer._conv_forward = lambda x, weight, bias: seen.append(weight) or x
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.rand(1, 4, 8, 8))
    assert seen[0].dtype == torch.float32
    assert torch.equal(seen[0], layer.folded()[0])
