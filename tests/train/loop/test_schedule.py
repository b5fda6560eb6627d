"""The rate over the budget."""

import pytest

from lmk.train.loop.descend import step_decay, warmup_cosine


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
