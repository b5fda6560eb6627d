"""Labels stand where they are told, stay in the image and can be read on anything."""

import numpy as np
import pytest

from lmk.runtime.outputs.drawing import draw_label


@pytest.mark.parametrize("texture", [0, 128, 255])
def test_letters_are_white_with_a_dark_outline(texture):
    image = np.full((40, 120, 3), texture, np.uint8)
    draw_label(image, "nose", (20, 20), 16)
    changed = (image != texture).any(-1)
    rows, columns = np.nonzero((image > 240).any(-1) if texture < 200 else (image < 40).all(-1))
    assert changed.sum() > 60 and columns.min() in range(19, 24) and 16 < rows.mean() < 24


@pytest.mark.parametrize("corner", [(-30, 5), (200, 20), (60, -9), (60, 400)])
def test_labels_move_into_the_image(corner):
    image = np.full((40, 120, 3), 90, np.uint8)
    draw_label(image, "tail", corner, 14)
    whole = np.full((200, 300, 3), 90, np.uint8)
    draw_label(whole, "tail", (100, 100), 14)
    assert (image != 90).sum() == (whole != 90).sum()


def test_image_smaller_than_its_label():
    image = np.zeros((4, 5, 3), np.uint8)
    draw_label(image, "a long name", (1, 1), 20)
    assert image.shape == (4, 5, 3)


def test_empty_name_is_nothing():
    image = np.zeros((40, 40, 3), np.uint8)
    draw_label(image, "", (5, 5), 20)
    assert not image.any()
