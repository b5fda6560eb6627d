"""A decoded frame and what was painted over its RGB copy -> the frame, painted, still in YUV.

Only what was painted is converted: converting whole frames back costs as much as encoding them, and
changes colours that nobody touched.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lmk.runtime.sources import colours_of, matrix_and_range


class Retoucher:
    """Puts painted pixels into copies of decoded frames."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # a frame's own is set up anew each time

    def __call__(
        self,
        frame: av.VideoFrame,
        image: NDArray[np.uint8],
        painted: NDArray[np.uint8],
        window: tuple[slice, slice] | None = None,
    ) -> av.VideoFrame:
        """A copy of `frame`, yuv420p of even size, with the pixels in which `painted` differs.

        image: what `frame` looks like, HWC uint8 RGB; painted: that with something painted on it.
        window: as of `whole_tiles`; outside it they are not compared.
        """
        copy = av.VideoFrame(frame.width, frame.height, "yuv420p")
        planes = [_pixels(plane) for plane in copy.planes]
        for plane, source in zip(planes, frame.planes, strict=True):
            plane[:] = _pixels(source)
        height, width = _tile_of(image)
        window = window or (slice(0, image.shape[0]), slice(0, image.shape[1]))
        there = image[window]
        tiles = _changed(there, painted[window], height, width) if there.size else np.empty(0)
        if len(tiles):
            corners = tiles * (height, width) + (window[0].start, window[1].start)
            patches = _cut(painted, corners, height, width)
            masks = (patches != _cut(image, corners, height, width)).any(axis=3)
            colours = matrix_and_range(colours_of(frame))
            self._put(planes, corners, patches, masks, colours)
        return copy

    def _put(
        self,
        planes: list[NDArray[np.uint8]],
        corners: NDArray[np.intp],
        patches: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        colours: tuple[int, int],
    ) -> None:
        """Convert the patches (N,h,w,3) as one picture, and put what the masks (N,h,w) say."""
        count, height, width = masks.shape
        converted = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(
                patches.reshape(count * height, width, 3), format="rgb24"
            ),
            format="yuv420p",
            dst_colorspace=colours[0],
            dst_color_range=colours[1],
            threads=1,
        )
        # A sample of U and V is of four pixels: it changes with any of them.
        quads = masks.reshape(count, height // 2, 2, width // 2, 2)
        coarse = np.asarray(quads.any(axis=(2, 4)), np.bool_)
        for number, (plane, source) in enumerate(zip(planes, converted.planes, strict=True)):
            where: NDArray[np.bool_] = coarse if number else masks
            step = 2 if number else 1
            pixels = _pixels(source).reshape(where.shape)
            for (top, left), new, mask in zip(corners // step, pixels, list(where), strict=True):
                bottom, right = top + height // step, left + width // step
                np.copyto(plane[top:bottom, left:right], new, where=mask)


def whole_tiles(image: NDArray[np.uint8], rows: slice, columns: slice) -> tuple[slice, slice]:
    """The window of those rows and columns, widened to the tiles that are compared."""
    height, width = _tile_of(image)
    return (
        slice(rows.start // height * height, -(-rows.stop // height) * height),
        slice(columns.start // width * width, -(-columns.stop // width) * width),
    )


def _pixels(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _tile_of(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width, even, of the tiles that are compared: they divide the image."""
    height, width = image.shape[:2]
    return (8 if height % 8 == 0 else 2), (32 if width % 32 == 0 else 2)


def _changed(
    image: NDArray[np.uint8], painted: NDArray[np.uint8], height: int, width: int
) -> NDArray[np.intp]:
    """Rows and columns (N,2) of the tiles of that size in which something differs."""
    rows, columns = image.shape[0] // height, image.shape[1] // width
    if width % 8 == 0:  # eight bytes at a time
        differs = _words(image) != _words(painted)
    else:
        differs = (image != painted).reshape(image.shape[0], -1)
    return np.argwhere(differs.reshape(rows, height, columns, -1).any(axis=(1, 3)))


def _words(image: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(image).reshape(image.shape[0], -1).view(np.uint64)


def _cut(
    image: NDArray[np.uint8], corners: NDArray[np.intp], height: int, width: int
) -> NDArray[np.uint8]:
    return np.stack([image[y : y + height, x : x + width] for y, x in corners])
