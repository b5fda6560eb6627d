"""A runner that finds triangles of a red, a green and a blue spot, and pictures with such in them.

In any crop that shows a triangle the landmarks are the centroids of its spots: as a network whose
landmarks follow the object perfectly. The scores of spots that are not there are 0.
"""

from dataclasses import replace

import numpy as np

from lmk.runtime.landmarker import Landmarker
from lmk.runtime.model.contract import Contract
from lmk.runtime.runners.runner import Runner

SIDE = 64
CORNERS = np.array([(0.0, -0.2), (-0.19, 0.12), (0.19, 0.12)])  # of spots, in sides of the object
SPOT = 0.045  # their standard deviation


class SpotRunner(Runner):
    """See above; crops of 64 pixels. calls: sizes of the batches."""

    def __init__(self):
        names = ("red", "green", "blue")
        self.contract = Contract("spots", 3, SIDE, "fp32", "c" * 64, "p" * 64, names)
        self.name = "spots"
        self.calls = []

    def __call__(self, crops):
        self.calls.append(len(crops))
        bright = np.clip(crops.astype(np.float32) - 60, 0, None)
        mass = bright.sum(axis=(1, 2))  # (B,3)
        ramp = np.arange(SIDE, dtype=np.float32)
        x, y = (
            np.where(mass > 0, (bright * grid).sum(axis=(1, 2)) / np.maximum(mass, 1), SIDE / 2)
            for grid in (ramp[None, None, :, None], ramp[None, :, None, None])
        )
        scores = np.clip(bright.max(axis=(1, 2)) / 120, 0, 1)
        return np.stack([x, y], axis=2).astype(np.float32), scores.astype(np.float32)

    def measured(self, acceptance):
        """Let the contract say by what objects are told."""
        self.contract = replace(self.contract, acceptance=acceptance.to_json())

    def close(self):
        pass


class NamedRunner(SpotRunner):
    """Gives the middle of the spots, and keeps these for following."""

    def __init__(self):
        super().__init__()
        names = ("middle", *self.contract.landmark_names)
        self.contract = replace(self.contract, num_landmarks=4, landmark_names=names, following=3)

    def __call__(self, crops):
        points, scores = super().__call__(crops)
        middle, score = points.mean(axis=1, keepdims=True), scores.mean(axis=1, keepdims=True)
        return np.concatenate([middle, points], 1), np.concatenate([score, scores], 1)


class NearRunner(SpotRunner):
    """Finds what is whole and no smaller than half of the crop, as networks do."""

    def __call__(self, crops):
        points, scores = super().__call__(crops)
        radius = np.linalg.norm(points - points.mean(axis=1, keepdims=True), axis=2).mean(axis=1)
        half = SIDE / 2 * np.linalg.norm(CORNERS, axis=1).mean()
        near = (radius >= half) & (scores > 0).all(axis=1)
        return points, np.where(near[:, None], scores, np.float32(0))


def landmarker():
    return Landmarker(SpotRunner())


def picture(height, width, *objects, seed=None):
    """uint8 (height, width, 3) with triangles at (x, y, side), edges; seed: of a dark background.

    The background is too dim for the runner to take note of.
    """
    image = np.zeros((height, width, 3), np.float32)
    if seed is not None:
        coarse = np.random.default_rng(seed).uniform(0, 55, (6, 8, 3))
        rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
        image += coarse[rows[:, None], columns]
    down, right = np.mgrid[:height, :width] + 0.5
    for x, y, side in objects:
        for channel, (dx, dy) in enumerate(CORNERS * side):
            squares = (right - x - dx) ** 2 + (down - y - dy) ** 2
            image[..., channel] += 250 * np.exp(-squares / (2 * (SPOT * side) ** 2))
    return np.clip(image, 0, 255).astype(np.uint8)
