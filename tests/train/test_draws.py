"""Random draws that depend on seed and step alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lmk.train.draws import batch_indices, generator


@given(count=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 1000))
def test_every_epoch_sees_each_image_once(count, batch, seed):
    steps = count // batch
    epochs = [
        [batch_indices(count, batch, epoch * steps + step, seed) for step in range(steps)]
        for epoch in range(3)
    ]
    for epoch in epochs if steps else ():
        seen = torch.cat(epoch).tolist()
        assert len(seen) == len(set(seen)) == steps * batch  # only a partial batch is left out
        assert min(seen) >= 0 and max(seen) < count


def test_epochs_and_seeds_differ_and_a_step_does_not():
    assert torch.equal(batch_indices(50, 50, 3, 7), batch_indices(50, 50, 3, 7))
    assert not torch.equal(batch_indices(50, 50, 3, 7), batch_indices(50, 50, 4, 7))
    assert not torch.equal(batch_indices(50, 50, 3, 7), batch_indices(50, 50, 3, 8))


def test_a_small_set_is_repeated():
    drawn = torch.cat([batch_indices(3, 8, step, 0) for step in range(20)])
    assert drawn.shape == (160,) and set(drawn.tolist()) == {0, 1, 2}


def test_random_draws_depend_on_every_counter():
    keys = [(0,), (1,), (0, 0), (0, 1), (0, 1, 2), (0, 2, 1), (5, 1, 2)]
    draws = {tuple(torch.rand(3, generator=generator(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)
    assert torch.equal(*(torch.rand(3, generator=generator(4, 2)) for _ in "ab"))
