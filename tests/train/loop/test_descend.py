"""A step in parts is that of the whole batch; what follows it; the rate over the budget."""

import copy

import pytest
import torch
from torch import nn

from lmk.runtime.errors import UserError
from lmk.train.loop.descend import Descent, follow, step_decay, warmup_cosine


def make(clip=None, said=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    say = (lambda text: None) if said is None else said.append
    return model, Descent({"net": model}, {"net": optimizer}, clip, say)


def batch(count=10):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, 3, generator=generator).double() for _ in range(2))


def losses_of(model):
    def losses(x, y):
        return {"fit": (model(x) - y[:, :1]).square().mean(), "size": model(x).abs().mean()}

    return losses


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_parts_make_the_same_step(parts, clip):
    whole, step = make(clip)
    other, divided = make(clip)
    divided.parts = parts
    expected = step(batch(), losses_of(whole), 0.1)
    got = divided(batch(), losses_of(other), 0.1)
    for a, b in zip(whole.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert got.keys() == expected.keys() == {"fit", "size"}
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)


def test_the_gradient_is_clipped():
    model, step = make(clip=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    step(batch(), losses_of(model), 1.0)
    now = [p.detach() for p in model.parameters()]
    moved = sum((a - b).square().sum() for a, b in zip(now, before, strict=True))
    assert float(moved.sqrt()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_out_of_memory_halves_the_batch(error):
    said, seen = [], []
    model, step = make(said=said)
    plain = losses_of(model)

    def hungry(x, y):
        seen.append(len(x))
        if len(x) > 3:
            raise error
        return plain(x, y)

    other, whole = make()
    expected = whole(batch(), losses_of(other), 0.1)
    got = step(batch(), hungry, 0.1)
    assert step.parts == 4 and seen == [10, 5, 3, 3, 2, 2]
    torch.testing.assert_close(got["fit"], expected["fit"])
    assert said[-1] == "out of memory: the batch is taken in 4 parts of 3 from here on"


def test_no_room_for_two_images():
    _, step = make()

    def hungry(x, y):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="out of memory with 2 images at a time.*smaller --width"):
        step(batch(8), hungry, 0.1)


def test_other_errors_are_not_swallowed():
    _, step = make()

    def broken(x, y):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        step(batch(), broken, 0.1)


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


def test_warmup_then_half_a_cosine():
    factors = [warmup_cosine(i / 1000) for i in range(1001)]
    peak = factors.index(max(factors))
    assert factors[0] < 0.05 and factors[peak] == pytest.approx(1, abs=1e-3)
    assert peak == 30 and factors[-1] == pytest.approx(0.01)
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert max(abs(a - b) for a, b in zip(factors, factors[1:], strict=False)) < 0.04


def test_the_authors_decay():
    decay = [step_decay(epoch / 80) for epoch in (0, 29, 30.1, 59, 60.1, 80)]
    assert decay == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
