"""Several sets as one: whose landmarks, and which images are kept to judge by."""

from dataclasses import replace

import numpy as np

from lmk.train.datasets.load import join
from lmk.train.datasets.sample import Dataset, Sample, scheme_of
from lmk.train.split import split_indices


def dataset(name, count, names=(), split=""):
    points = np.arange(2 * len(names), dtype=np.float32).reshape(-1, 2)
    samples = tuple(Sample(f"{name}{n}", lambda: None, points, split) for n in range(count))
    return Dataset(name, samples, name, scheme_of(names))


def held_out(joined):
    splits = tuple(sample.split for sample in joined.samples)
    return [joined.samples[n].name for n in split_indices(splits, 0)[1]]


def test_landmarks_of_one_name_are_one():
    joined = join([dataset("a", 1, ("eye", "nose")), dataset("b", 1, ("nose", "ear"))])
    assert (joined.name, joined.landmark_names) == ("a+b", ("eye", "nose", "ear"))
    first, second = (sample.points for sample in joined.samples)
    np.testing.assert_array_equal(first, [[0, 1], [2, 3], [np.nan, np.nan]])
    np.testing.assert_array_equal(second, [[np.nan, np.nan], [0, 1], [2, 3]])


def test_a_tenth_is_kept_of_each_set_that_has_no_splits():
    a, b, c = dataset("a", 40), dataset("b", 20, split="test"), dataset("c", 20)
    b = replace(b, samples=(*b.samples, *dataset("B", 30, split="train").samples))
    kept = held_out(join([a, b, c]))
    assert [sum(name.startswith(each) for name in kept) for each in "abBc"] == [4, 20, 0, 2]
    assert kept == held_out(join([a, b, c]))  # always the same
    assert len(held_out(join([a, c]))) == 6  # none has any: a tenth of all, as of one alone


def test_one_is_as_it_is():
    a = dataset("a", 3)
    assert join([a]) is a
