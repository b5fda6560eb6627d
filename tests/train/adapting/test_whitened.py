"""Adam on V, where W = V·M."""

import copy

import pytest
import torch
from torch import nn

from lmk.train.adapting.whitened import WhitenedAdam, whitening
from lmk.train.network import ProjectedConv2d

OPTIONS = {"lr": 1e-2, "betas": (0.0, 0.9)}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 4, 3, bias=False)
    conv.weight.data[1] = conv.weight.data[0] + 0.3 * conv.weight.data[1]  # two are nearly alike
    return ProjectedConv2d(conv)


def descend(layer, optimizer, steps=5):
    for step in range(steps):
        images = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (layer(images) - 1).square().mean().backward()
        optimizer.step()


def test_filters_are_at_right_angles_and_as_long_as_free_ones_move(monkeypatch):
    monkeypatch.setattr("lmk.train.adapting.whitened._LEAST", 0.0)
    theta = torch.randn(8, 5, 3, 3)
    filters = (whitening(theta) @ theta.flatten(1)).double()
    torch.testing.assert_close(
        filters @ filters.T, torch.eye(8).double() * 45 / 8, atol=1e-3, rtol=1e-3
    )


def test_a_step_is_as_long_as_one_on_the_weights(monkeypatch):
    monkeypatch.setattr("lmk.train.adapting.whitened._LEAST", 0.0)
    theta = torch.randn(8, 5, 3, 3)
    signs = torch.where(torch.rand(8, 8) < 0.5, -1.0, 1.0)  # what Adam changes V by, over the rate
    change = signs @ whitening(theta) @ theta.flatten(1)
    free = torch.ones_like(theta).flatten(1)
    torch.testing.assert_close(change.norm(dim=1), free.norm(dim=1))


def test_filters_that_depend_on_each_other_are_no_harm():
    theta = torch.randn(16, 4, 1, 1)  # of rank 4
    matrix = whitening(theta)
    assert matrix.isfinite().all()
    torch.testing.assert_close(matrix, matrix.T)


def test_it_is_adam_on_another_parameter(layer):
    """W = V·M, with V of a module of its own, comes to the same W."""
    matrix = whitening(layer.theta)

    class ByV(nn.Module):
        def __init__(self):
            super().__init__()
            self.v, self.theta = nn.Parameter(torch.linalg.inv(matrix)), layer.theta

        def forward(self, x):
            weight = (self.v @ matrix @ self.theta.flatten(1)).view_as(self.theta)
            return nn.functional.conv2d(x, weight)

    by_v = ByV()
    descend(by_v, torch.optim.Adam([by_v.v], **OPTIONS))
    descend(layer, WhitenedAdam([{"params": [layer.projection]}], [layer], **OPTIONS))
    assert (layer.projection - torch.eye(4)).abs().max() > 0.01
    torch.testing.assert_close(layer.projection, by_v.v @ matrix, atol=1e-4, rtol=1e-3)


def test_what_is_no_w_is_learnt_as_ever(layer):
    head = nn.Linear(3, 2)
    other = copy.deepcopy(head)
    groups = [{"params": [layer.projection]}, {"params": list(head.parameters())}]
    whitened = WhitenedAdam(groups, [layer], **OPTIONS)
    plain = torch.optim.Adam(other.parameters(), **OPTIONS)
    for model, optimizer in ((head, whitened), (other, plain)):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(head.weight, other.weight, rtol=0, atol=0)
    torch.testing.assert_close(layer.projection, torch.eye(4), rtol=0, atol=0)  # no gradient


def test_it_goes_on_from_its_state(layer):
    descend(layer, optimizer := WhitenedAdam([{"params": [layer.projection]}], [layer], **OPTIONS))
    other = copy.deepcopy(layer)
    resumed = WhitenedAdam([{"params": [other.projection]}], [other], **OPTIONS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    descend(layer, optimizer)
    descend(other, resumed)
    torch.testing.assert_close(layer.projection, other.projection, rtol=0, atol=0)
