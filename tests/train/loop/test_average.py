"""The moving average follows every tensor of its twin."""

import copy

import torch
from torch import nn

from lmk.train.loop.descend import follow


def test_every_float_moves_by_its_share_and_the_rest_is_copied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = copy.deepcopy(model)
    before = copy.deepcopy(average.state_dict())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    follow(average, model, 0.75)
    for name, tensor in average.state_dict().items():
        step = 0.25 if tensor.is_floating_point() else 1
        torch.testing.assert_close(tensor, before[name] + step)
