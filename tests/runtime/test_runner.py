"""What every runner turns away at the door."""

import numpy as np
import pytest

from lmk.runtime.ort import OrtRunner


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
