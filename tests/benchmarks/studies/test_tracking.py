"""The measures of the tracking benchmark, on motion that is known."""

import numpy as np
import pytest

from lmk.benchmarks.studies.tracking import jitter, pasted
from lmk.runtime.detection import Detection


def _at(positions, side=64.0, track=0):
    scores = np.ones(2, np.float32)
    return [
        [Detection(np.full((2, 2), x, np.float32), scores, (0.0, 0.0, side, side / 2), track)]
        for x in positions
    ]


def test_jitter_is_the_bend_of_a_path_in_128ths_of_the_box():
    assert jitter(_at([0, 3, 6, 9])) == 0  # even motion is none
    # 0 - 2·1 + 0 = -2 in x and in y, of a box of 64
    assert jitter(_at([0, 1, 0])) == pytest.approx(128 * 2 * np.sqrt(2) / 64, abs=1e-3)


def test_jitter_is_not_taken_across_a_gap_or_from_track_to_track():
    assert jitter([*_at([0, 5]), [], *_at([0, 9])]) is None
    assert jitter([*_at([0, 5]), *_at([9, 0], track=1)]) is None


def test_the_pasted_object_is_where_the_box_says():
    thing = np.full((40, 40, 3), 255, np.uint8)
    background = np.zeros((60, 90, 3), np.uint8)
    hidden = 0
    for frame, box in pasted(thing, background):
        if box is None:
            hidden += 1
            assert frame.image.max() == 0
            continue
        rows, columns = np.nonzero(frame.image[..., 0] > 128)
        centre = columns.mean() + 0.5, rows.mean() + 0.5
        assert np.allclose(centre, (box[0] + box[2] / 2, box[1] + box[3] / 2), atol=1.0)
        assert 0.8 * box[2] < np.ptp(columns) + 1 <= box[2]
    assert hidden == 20
