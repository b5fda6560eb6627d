"""What every runner turns away at the door."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.runners.ort import OrtRunner
from lmk.runtime.runners.runner import batches


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 128, 128, 3), np.uint8),
    ],
)
def test_wrong_crops_are_named(landmarker, crops):
    with pytest.raises(ValueError, match=r"crops: got .* expected uint8 \(B, 64, 64, 3\)"):
        landmarker.runner(crops)


def test_context_manager_closes(model_path):
    with OrtRunner(model_path) as runner:
        assert runner(np.zeros((1, 64, 64, 3), np.uint8))[1].shape == (1, 3)
    with pytest.raises(ValueError, match="after close"):
        runner(np.zeros((1, 64, 64, 3), np.uint8))


BUCKETS = st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True)


@given(st.integers(0, 200), BUCKETS)
def test_batches_cover_all_crops_in_order(count, buckets):
    cuts = list(batches(count, buckets))
    assert [crop for start, stop, _ in cuts for crop in range(start, stop)] == list(range(count))
    for start, stop, bucket in cuts:
        assert bucket in buckets and 0 < stop - start <= bucket
        padding = bucket - (stop - start)
        assert padding == 0 or 2 * padding < bucket or bucket == min(buckets)


def test_batches_are_those_one_expects():
    cuts = {count: [bucket for *_, bucket in batches(count, (64, 1, 8))] for count in (1, 5, 9, 70)}
    assert cuts == {1: [1], 5: [8], 9: [8, 1], 70: [64, 8]}
