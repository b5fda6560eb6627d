"""Several sets as one: whose landmarks, and which images are kept to judge by."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets import open_dataset
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


def test_what_is_kept_is_what_each_alone_would_keep():
    """So a pack of both is never judged on what it has learnt from."""
    a, b = dataset("a", 40), dataset("b", 20)
    for seed in (0, 1):
        alone = {
            each.samples[n].name
            for each in (a, b)
            for n in split_indices(("",) * len(each.samples), seed)[1]
        }
        assert set(held_out(join([a, b], seed))) == alone
    assert join([a, b], 0).fingerprint != join([a, b], 1).fingerprint


def test_the_same_images_are_not_joined_with_themselves(tmp_path):
    with pytest.raises(UserError, match="--data: got a twice, expected different images"):
        join([dataset("a", 3), dataset("b", 2), dataset("a", 3)])
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="twice"):
        join([open_dataset(str(tmp_path)), open_dataset(f"{tmp_path}/../{tmp_path.name}")])


def test_films_of_one_name_are_not_joined():
    def film(name, fingerprint):
        samples = tuple(
            Sample(f"{name}#{n}", lambda: None, np.empty((0, 2)), time_s=n) for n in (1, 2)
        )
        return Dataset(name, samples, fingerprint, scheme_of(()))

    with pytest.raises(UserError, match="got two films called cam.mp4, .*rename one"):
        join([film("cam.mp4", "1"), film("cam.mp4", "2")])
    assert len(join([film("cam.mp4", "1"), film("dog.mp4", "2")]).samples) == 4


def test_one_is_as_it_is():
    a = dataset("a", 3)
    assert join([a]) is a
