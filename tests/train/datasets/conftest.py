"""Builders of tiny data sets, byte for byte as the tools that made the real ones write them."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    """Return a function that writes an image under `tmp_path` and returns its path."""

    def write(name, size=(12, 10), colour=(200, 100, 50)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return write


@pytest.fixture
def struct():
    """Return a function that makes a struct array, 1×N, of dicts with the same keys.

    As in Matlab a field is there for all elements of an array or for none, and one without a value
    holds [], a 0×0 double.
    """

    def make(*elements):
        array = np.zeros((1, len(elements)), [(key, object) for key in elements[0]])
        for index, element in enumerate(elements):
            assert element.keys() == elements[0].keys()
            for key, value in element.items():
                array[key][0, index] = np.zeros((0, 0)) if value is None else value
        return array

    return make
