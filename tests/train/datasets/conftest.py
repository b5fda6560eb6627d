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


@pytest.fixture(scope="session")
def turned():
    """Save a black picture with one red spot, turned as an orientation of EXIF says.

    Returns the upright size (width, height), the spot (x, y) in it, and both as stored.
    """

    def save(path, orientation):
        exif = Image.Exif()
        exif[274] = orientation
        stored = np.zeros((6, 9, 3), np.uint8)
        stored[1, 2] = 250, 0, 0
        Image.fromarray(stored).save(path, exif=exif)
        # What the standard says of row 0 and column 0, written out: (x, y) where (2, 1) is shown.
        shown = {
            **{1: (2, 1), 2: (6, 1), 3: (6, 4), 4: (2, 4)},
            **{5: (1, 2), 6: (4, 2), 7: (4, 6), 8: (1, 6)},
        }[orientation]
        return ((9, 6) if orientation < 5 else (6, 9)), shown, (9, 6), (2, 1)

    return save
