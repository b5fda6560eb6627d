"""Which images are learnt from: the named splits, else a seeded tenth is kept."""

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.train.split import drawn_digest, split_for_training, split_indices, subset


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Test"])
def test_named_splits(name):
    train, held_out = split_indices(("train", name, "", "extra", name), seed=0)
    assert train.tolist() == [0, 2, 3] and held_out.tolist() == [1, 4]


@pytest.mark.parametrize(("count", "kept"), [(2, 1), (9, 1), (100, 10), (37, 4)])
def test_a_seeded_tenth(count, kept):
    train, held_out = split_indices(("",) * count, seed=3)
    assert len(held_out) == kept
    assert sorted([*train, *held_out]) == list(range(count))
    np.testing.assert_array_equal(held_out, split_indices(("",) * count, seed=3)[1])


def test_seeds_differ():
    assert split_indices(("",) * 100, 0)[1].tolist() != split_indices(("",) * 100, 1)[1].tolist()


def test_what_is_drawn_is_told_from_what_a_split_says():
    names = [f"{number}.png" for number in range(30)]
    drawn = drawn_digest(names, ("",) * 30, 0)
    assert drawn == drawn_digest(names, ("",) * 30, 0) != drawn_digest(names, ("",) * 30, 1)
    assert drawn != drawn_digest([*names, "a.png"], ("",) * 31, 0)  # one came
    assert drawn_digest(names, ("train",) * 29 + ("test",), 0) is None
    joined = ("",) * 29 + ("validation",)  # what `join` calls its tenth
    assert drawn_digest(names, joined, 0) != drawn_digest(names[::-1], joined, 0)


def test_a_lone_image_is_trained_on_and_watched():
    train, held_out = split_for_training("shoes", ("",), 0)
    assert train.tolist() == held_out.tolist() == [0]


def test_nothing_to_train_on():
    with pytest.raises(UserError, match="shoes: got images of val and test splits only"):
        split_for_training("shoes", ("test", "val"), 0)


def test_subsets_grow():
    indices = np.arange(0, 40, 2)
    small, large = subset(indices, 5, 0), subset(indices, 12, 0)
    assert len(small) == 5 and len(large) == 12 and set(small) <= set(large) <= set(indices)
    assert list(subset(indices, None, 0)) == list(indices)
    assert list(subset(indices, 5, 1)) != list(small)
    with pytest.raises(UserError, match="--images: got 21, expected at most the 20 images"):
        subset(indices, 21, 0)
