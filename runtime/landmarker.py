"""Image and object box -> landmarks in the frame: crop, run, map back."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from lmk.runtime import images
from lmk.runtime.contract import Contract
from lmk.runtime.errors import UserError
from lmk.runtime.images import Box
from lmk.runtime.ort import OrtRunner
from lmk.runtime.runner import Runner
from lmk.runtime.side_by_side import SideBySide

if TYPE_CHECKING:
    from lmk.runtime.feed import Found
    from lmk.runtime.region import Region
    from lmk.runtime.sources import Source

LOW_SCORE = 0.5  # below it a heat-map has no peak to speak of


@dataclass(frozen=True)
class Detection:
    """The landmarks of one object in one frame."""

    points: NDArray[np.float32]  # (K,2): (x, y) in frame pixels, centre of the top-left one (0, 0)
    scores: NDArray[np.float32]  # (K,) in [0, 1]
    box: Box  # the object's box that was searched, as given (edges, not pixel centres)
    track: int = 0  # the object's number: the same in all frames of a source

    @property
    def low(self) -> NDArray[np.bool_]:
        """(K,): which landmarks are not to be relied on, by their scores."""
        return self.scores < LOW_SCORE


class Landmarker:
    """Finds the landmarks of one object category in images. Also a context manager.

    Any number of threads may use it at the same time.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    @property
    def contract(self) -> Contract:
        """What the model promises; it changes with the category."""
        return self.runner.contract

    @property
    def names(self) -> tuple[str, ...]:
        """The K landmark names, in the order of `Detection.points`."""
        return self.contract.landmark_names

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
        side = self.contract.input_size
        return [
            Detection(images.to_frame(points, self._square(box), side), score, box)
            for points, score, box in zip(landmarks, scores, boxes, strict=True)
        ]

    def stream(
        self,
        source: Source | Path | str | int,
        roi: str | Box | Region = "full",
        *,
        start: str | Box | None = None,
        objects: int | None = None,
        detector: Path | str | None = None,
        smooth: bool | tuple[float, float] = False,
        batch: int = 4,
        live: bool | None = None,
    ) -> Generator[Found, None, None]:
        """Find the landmarks in every frame of a source: yields `frame` and its `detections`.

        source: what `sources.open_source` takes, closed at the end, or an open one, which stays
        open. roi, start, objects, detector: as of `lmk detect`; or a region of one's own, for this
        stream alone. smooth: steady the points of each track; or least cut-off in Hz and gain by
        speed, see `Smoother`. batch: frames that go through the model together. live: skip frames
        that come while the model or the caller is busy, a file being played at its own rate; None:
        with cameras and streams.
        Frames come in order; the next ones are decoded meanwhile, in a thread that ends when the
        generator ends, is closed or forgotten. Raises UserError, at once for `roi` to `smooth`, for
        the source when the first frame is asked for, and when it ends in an error.
        """
        from lmk.runtime.regions import RegionMaker, Where
        from lmk.runtime.smooth import BETA, MIN_CUTOFF_HZ, Smoother
        from lmk.runtime.stream import stream

        if batch < 1:
            raise ValueError(f"batch: got {batch}, expected 1 or more")
        if isinstance(source, int):
            source = f"camera:{source}"
        if isinstance(roi, str | tuple):
            where = Where(
                _in_words(roi),
                _in_words(start) if start else None,
                objects,
                Path(detector) if detector else None,
            )
            region = RegionMaker(where, self)()
        elif start is None and objects is None and detector is None:
            region = roi
        else:
            raise ValueError("roi: got a region and start, objects or detector, expected one alone")
        values = (MIN_CUTOFF_HZ, BETA) if smooth is True else smooth
        return stream(self, source, region, Smoother(*values) if values else None, batch, live)

    def switch(self, category: Path | str) -> None:
        """Find another category of the same core from now on, by its name or pack.

        Only with an engine that was built with --refit: its weights are swapped, in well under a
        second. Waits for calls in other threads. Raises UserError as `swap.swap`, and for a model
        that is no engine.
        """
        from lmk.runtime.swap import swap
        from lmk.runtime.trt import TrtRunner

        if not isinstance(self.runner, TrtRunner):
            raise UserError(
                f"{self.runner.name}: cannot change to '{category}', expected an engine; load that "
                "category, or an engine that was built with --refit"
            )
        swap(self.runner, category)

    def close(self) -> None:
        """Free the model."""
        self.runner.close()

    def __repr__(self) -> str:
        contract = self.contract
        return (
            f"<Landmarker '{contract.category}', {contract.num_landmarks} landmarks, "
            f"{self.runner.name}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _square(self, box: Box) -> Box:
        if not (np.isfinite(box).all() and len(box) == 4 and box[2] > 0 and box[3] > 0):
            raise ValueError(f"box: got {box}, expected (x, y, width, height) of positive size")
        return images.square_around(box, self.contract.crop_scale)


def _in_words(place: str | Box) -> str:
    """As `parse_roi` takes it."""
    return place if isinstance(place, str) else ",".join(map(str, place))


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


def load(
    path: Path | str,
    device: str | None = None,
    threads: int | None = None,
    engine: Path | str | None = None,
    side_by_side: bool = False,
) -> Landmarker:
    """Load a model made by `lmk export`, or a category by its name.

    A category's model is `runs/NAME.onnx`, composed on first use from a pack in `runs/` or one that
    ships, see `named.model_file`. device: "cpu", "cuda", or "openvino", which is OpenVINO on the
    CPU; None = cuda for an engine and cpu else. threads: CPU threads of the model, None = one a
    core. engine: run the category, or its pack, with this engine file, which was built with --refit
    for another category of the same core: it gets the weights of the pack, see `swap.swap`.
    side_by_side: on the CPU with ONNX Runtime, the crops of a batch run next to each other, best
    for throughput beside other work. Raises UserError when a file is missing or not such a model,
    the name is not known, or the device does not load.
    """
    if engine is not None:
        _check_device(Path(engine), device)
        from lmk.runtime.swap import open_engine

        return Landmarker(open_engine(Path(engine), path))
    if Path(path).suffix == ".safetensors":
        raise UserError(
            f"{path}: got a pack or a core, expected an exported model (.onnx); "
            "run `lmk export` on it first"
        )
    from lmk.runtime.named import model_file  # not when `lmk` is imported: it brings rich

    path = model_file(path)
    if path.suffix != ".engine" and device == "openvino":
        from lmk.runtime.ov import OpenVinoRunner

        return Landmarker(OpenVinoRunner(path, threads))
    if path.suffix != ".engine" and side_by_side and device in (None, "cpu"):
        return Landmarker(SideBySide(OrtRunner(path, "cpu", threads=1), threads))
    if path.suffix != ".engine":
        return Landmarker(OrtRunner(path, device or "cpu", threads))
    _check_device(path, device)
    from lmk.runtime.trt import TrtRunner

    return Landmarker(TrtRunner(path))


def _check_device(engine: Path, device: str | None) -> None:
    if device not in (None, "cuda"):
        raise UserError(
            f"{engine}: got device '{device}', expected cuda, where engines run; leave the device "
            "out, or name the ONNX file"
        )
