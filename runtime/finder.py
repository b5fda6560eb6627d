"""Image and object box -> landmarks in the frame: crop, run, map back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lmk.runtime import images
from lmk.runtime.detection import Detection
from lmk.runtime.images import Box
from lmk.runtime.model import Contract
from lmk.runtime.runners import Runner


class Finder:
    """Finds the landmarks of one object category in images. Also a context manager.

    Any number of threads may use it at the same time. device, threads: what was asked for when the
    runner was opened, for what runs beside it.
    """

    def __init__(
        self, runner: Runner, device: str | None = None, threads: int | None = None
    ) -> None:
        self.runner, self.device, self.threads = runner, device, threads

    @property
    def contract(self) -> Contract:
        """What the model promises; it changes with the category."""
        return self.runner.contract

    @property
    def names(self) -> tuple[str, ...]:
        """The K landmark names, in the order of `Detection.points`."""
        return self.contract.given_names

    def __call__(self, image: NDArray[np.uint8], roi: Box | None = None) -> Detection:
        """Find the landmarks in an HWC uint8 RGB image, or in its box `roi` (x, y, w, h)."""
        _check_image(image)
        return self.batch([image], [images.whole(image) if roi is None else roi])[0]

    def batch(
        self, batch_images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]
    ) -> list[Detection]:
        """Find the landmarks of `boxes[i]` in `batch_images[i]` (HWC uint8 RGB, any sizes).

        All in one run of the model. Raises ValueError for images or boxes of the wrong form.
        """
        if len(batch_images) == 0:
            return []
        pairs = zip(batch_images, boxes, strict=True)
        return self.locate(np.stack([self.crop(image, box) for image, box in pairs]), boxes)

    def crop(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
        """The model's view (S,S,3) of `box` in an HWC uint8 RGB image."""
        _check_image(image)
        return images.crop(image, self._square(box), self.contract.input_size)

    def locate(self, crops: NDArray[np.uint8], boxes: Sequence[Box]) -> list[Detection]:
        """Run crops (B,S,S,3) that `crop` cut for `boxes`."""
        landmarks, scores = self.runner(crops)
        side, given = self.contract.input_size, len(self.names)
        found = []
        for places, score, box in zip(landmarks, scores, boxes, strict=True):
            points = images.to_frame(places, self._square(box), side)
            kept = (points[given:], score[given:]) if len(points) > given else None
            found.append(Detection(points[:given], score[:given], box, landmarks=kept))
        return found

    def close(self) -> None:
        """Free the model."""
        self.runner.close()

    def __repr__(self) -> str:
        contract = self.contract
        return (
            f"<Landmarker '{contract.category}', {len(self.names)} landmarks, {self.runner.name}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _square(self, box: Box) -> Box:
        if not (np.isfinite(box).all() and len(box) == 4 and box[2] > 0 and box[3] > 0):
            raise ValueError(f"box: got {box}, expected (x, y, width, height) of positive size")
        return images.square_around(box, self.contract.crop_scale)


def _check_image(image: object) -> None:
    """Raise ValueError unless `image` is an HWC uint8 RGB array that holds a pixel."""
    expected = "expected uint8 (H, W, 3) in RGB order"
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"image: got {type(image).__name__}, {expected}, a NumPy array; read a file with "
            "`lmk.runtime.images.read_image`, convert with `numpy.asarray(picture.convert('RGB'))`"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: got {image.dtype} {image.shape}, {expected}")
