"""fold: the same function, without projections, without touching what was folded."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmk.export.graph.trace import fold, fold_conv
from lmk.export.graph.verify import randomised
from lmk.train.network.category import new_category
from lmk.train.network.projection import ProjectedConv2d, project

convolutions = st.fixed_dictionaries(
    {
        "in_channels": st.integers(1, 6),
        "out_channels": st.integers(1, 8),
        "kernel_size": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "dilation": st.integers(1, 2),
        "bias": st.booleans(),
        "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    }
)


def projected(options, dtype):
    """A ProjectedConv2d whose W and theta are random."""
    layer = ProjectedConv2d(nn.Conv2d(**options).to(dtype))
    nn.init.normal_(layer.projection)
    return layer


@settings(max_examples=60, deadline=None)
@given(options=convolutions, seed=st.integers(0, 2**31))
def test_folded_convolution_computes_what_the_projected_one_does(options, seed):
    torch.manual_seed(seed)
    layer = projected(options, torch.float64)
    x = torch.randn(2, options["in_channels"], 11, 12, dtype=torch.float64)
    plain = fold_conv(layer)
    assert type(plain) is nn.Conv2d
    torch.testing.assert_close(plain(x), layer(x), rtol=1e-11, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(options=convolutions, seed=st.integers(0, 2**31))
def test_folded_weights_are_the_exact_product_rounded_once(options, seed):
    torch.manual_seed(seed)
    layer = projected(options, torch.float32)
    plain = fold_conv(layer)
    w, theta = layer.projection.detach().double(), layer.theta.double()
    assert plain.weight.dtype == torch.float32
    exact = torch.einsum("op,pikl->oikl", w, theta)
    torch.testing.assert_close(plain.weight.double(), exact, rtol=6.1e-8, atol=1e-13)
    assert (plain.bias is None) == (layer.theta_bias is None)
    if plain.bias is not None:
        exact = w @ layer.theta_bias.double()
        torch.testing.assert_close(plain.bias.double(), exact, rtol=6.1e-8, atol=1e-13)


@pytest.mark.parametrize("scope", ["all", "blocks"])
def test_heatmaps_stay_and_no_projection_is_left(core, crops, scope):
    model = randomised(project(core, 5, scope), crops)
    images, folded = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255, fold(model)
    with torch.no_grad():
        expected, got = model(images), folded(images)
    difference = (expected - got).abs().max().item()
    assert difference < 1e-4 * expected.std().item(), f"max difference {difference:.2e}"
    assert not any(isinstance(module, ProjectedConv2d) for module in folded.modules())
    assert not any("projection" in name or "theta" in name for name in folded.state_dict())
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())


def test_input_is_untouched(core, crops):
    model = project(core, 5).train()
    before = copy.deepcopy(model.state_dict())
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    folded = fold(model)
    for p in folded.parameters():
        p.fill_(7)  # nothing of the copy is shared
    assert model.training
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("method", ["finetune", "scratch"])
def test_network_without_projections_is_copied(core, method):
    model = new_category(method, core, 5)
    folded = fold(model)
    assert folded is not model
    assert all(
        torch.equal(value, folded.state_dict()[name]) for name, value in model.state_dict().items()
    )
