"""What a run has learnt so far, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lmk.runtime.detection import Detection
from lmk.runtime.files import atomic_path
from lmk.runtime.images import whole
from lmk.runtime.outputs import draw


def write_preview(
    path: Path, images: Tensor, sources: Tensor, painted: Tensor, points: Tensor
) -> None:
    """Write a PNG, a column an image: y with its landmarks, y', y painted from y' and landmarks.

    images, sources, painted (B,3,H,W) in [0, 1]; points (B,K,2) in pixels.
    """
    originals, deformed, results = (_pixels(batch) for batch in (images, sources, painted))
    certain = np.ones(points.shape[1], np.float32)
    marked = [
        draw(image, Detection(found, certain, whole(image)))
        for image, found in zip(originals, points.cpu().numpy(), strict=True)
    ]
    rows = [np.concatenate(list(row), axis=1) for row in (marked, deformed, results)]
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(rows, axis=0)).save(temporary)


def _pixels(images: Tensor) -> np.ndarray:
    """(B,3,H,W) in [0, 1] -> (B,H,W,3) uint8."""
    scaled = (images.detach().float().clamp(0, 1) * 255).round().byte()
    return scaled.permute(0, 2, 3, 1).cpu().numpy()
