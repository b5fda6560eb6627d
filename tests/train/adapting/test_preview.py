"""The preview sheet: three rows, a column an image, landmarks drawn where they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.adapting.preview import write_preview


def grey(value):
    return torch.full((2, 3, 64, 64), value)


def test_rows_and_columns(tmp_path):
    path = tmp_path / "sheet.png"
    images = torch.stack((torch.full((3, 64, 64), 0.2), torch.full((3, 64, 64), 0.4)))
    points = torch.tensor([[[16.0, 48.0]], [[48.0, 16.0]]])
    write_preview(path, images, grey(0.6), grey(2.0), points)
    sheet = np.asarray(Image.open(path)).astype(int)
    assert sheet.shape == (3 * 64, 2 * 64, 3)
    assert (sheet[64:128] == 153).all()  # sources
    assert (sheet[128:] == 255).all()  # painted, clipped
    top = sheet[:64]
    assert (top[0, 0] == 51).all() and (top[0, 127] == 102).all()
    drawn_left, drawn_right = (np.ptp(half, axis=2) > 30 for half in (top[:, :64], top[:, 64:]))
    for drawn, (x, y) in ((drawn_left, (16, 48)), (drawn_right, (48, 16))):
        rows, columns = np.nonzero(drawn)
        assert abs(rows.mean() - y) < 2 and abs(columns.mean() - x) < 2


def test_a_full_disk(tmp_path, full_disk):
    with full_disk(), pytest.raises(UserError, match="disk is full"):
        write_preview(tmp_path / "a.png", grey(0.1), grey(0.1), grey(0.1), torch.zeros(2, 1, 2))
    assert not list(tmp_path.iterdir())
