"""A model file or the name of a category -> a `Landmarker` of images and of whole sources."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.detection import Detection, Found
from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.images import Box, read_image, to_rgb
from lmk.runtime.outputs import draw
from lmk.runtime.pipeline import BETA, MIN_CUTOFF_HZ, Feed, Smoother, follow
from lmk.runtime.regions import Region, RegionMaker, Where
from lmk.runtime.runners import TrtRunner, open_runner, settle, swap
from lmk.runtime.sources import Source, open_source


@dataclass(frozen=True, repr=False)
class Landmarks(Detection):
    """A detection that knows its names and its picture: it shows itself in a notebook."""

    names: tuple[str, ...] = ()
    image: NDArray[np.uint8] = field(
        default_factory=lambda: np.zeros((1, 1, 3), np.uint8), compare=False
    )

    def draw(self) -> Image.Image:
        """The picture with the landmarks on it."""
        return Image.fromarray(draw(self.image, self))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: box, track, and name -> [x, y, score] in pixels of the picture."""
        rows = zip(self.names, self.points.tolist(), self.scores.tolist(), strict=True)
        marks = {name: [x, y, score] for name, (x, y), score in rows}
        return {"track": self.track, "box": list(self.box), "landmarks": marks}

    def to_supervision(self) -> Any:
        """As `supervision.KeyPoints` of one object; UserError where that is not installed."""
        try:
            import supervision
        except ImportError as error:
            raise UserError(
                f"supervision: not installed ({error}); pip install supervision"
            ) from None
        return supervision.KeyPoints(
            xy=self.points[None], confidence=self.scores[None], class_id=np.zeros(1, int)
        )

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.draw().save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        low = f", {self.low.sum()} of low score" if self.low.any() else ""
        return f"<{len(self.points)} landmarks in {width}×{height} pixels{low}>"


class Landmarker(Finder):
    """A `Finder` that also takes files and whole sources, and can change its category."""

    def __call__(
        self, image: NDArray[np.uint8] | Image.Image | Path | str, roi: Box | None = None
    ) -> Landmarks:
        """Find the landmarks in an image, or in its box `roi` (x, y, w, h).

        image: HWC uint8 RGB, a picture of Pillow, or the path of a file, which is turned upright.
        Raises UnreadableImage (a UserError) for a file that is none, ValueError for other things.
        """
        if isinstance(image, Path | str):
            image = read_image(Path(image))
        elif isinstance(image, Image.Image):
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"image: got mode {image.mode}, expected 8 bits; convert it")
            image = to_rgb(image, Path("image"))
        found = super().__call__(image, roi)
        return Landmarks(
            found.points, found.scores, found.box, found.track, names=self.names, image=image
        )

    def stream(
        self,
        source: Source | Path | str | int,
        roi: str | Box | Region = "auto",
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
            region: Region | RegionMaker = RegionMaker(where, self)
        elif start is None and objects is None and detector is None:
            region = roi
        else:
            raise ValueError("roi: got a region and start, objects or detector, expected one alone")
        values = (MIN_CUTOFF_HZ, BETA) if smooth is True else smooth
        return _stream(self, source, region, Smoother(*values) if values else None, batch, live)

    def switch(self, category: Path | str) -> None:
        """Find another category of the same core from now on, by its name or pack.

        Only with an engine that was built with --refit: its weights are swapped, in well under a
        second. Waits for calls in other threads. Raises UserError as `swap`, and for a model
        that is no engine.
        """
        if not isinstance(self.runner, TrtRunner):
            raise UserError(
                f"{self.runner.name}: cannot change to '{category}', expected an engine; load that "
                "category, or an engine that was built with --refit"
            )
        swap(self.runner, category)


def load(
    path: Path | str,
    device: str | None = None,
    threads: int | None = None,
    engine: Path | str | None = None,
    side_by_side: bool = False,
) -> Landmarker:
    """Load a model made by `lmk export`, or a category by its name; see `open_runner`."""
    if engine is None:
        path, device = settle(path, device, threads, side_by_side)
    runner = open_runner(path, device, threads, engine, side_by_side)
    return Landmarker(runner, device, threads)


def _in_words(place: str | Box) -> str:
    """As `parse_roi` takes it."""
    return place if isinstance(place, str) else ",".join(map(str, place))


def _stream(
    landmarker: Landmarker,
    source: Source | Path | str,
    region: Region | RegionMaker,
    smoother: Smoother | None,
    batch_size: int,
    live: bool | None,
) -> Generator[Found, None, None]:
    """See `Landmarker.stream`; what it opens is opened when the first frame is asked for."""
    with ExitStack() as ends:
        frames = source
        if isinstance(frames, Path | str):
            frames = ends.enter_context(open_source(frames))
        live = frames.is_live if live is None else live
        if isinstance(region, RegionMaker):
            region = region(frames)
        feed = Feed(frames, region, landmarker, batch_size, smoother, live)
        ends.callback(feed.stop)
        feed.start()
        for _, found in follow([feed], landmarker, batch_size):
            yield from found
        if feed.error is not None:
            raise feed.error
