"""Frames with what was found -> pictures with it drawn on them: a video, or PNG files."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.painter import Painter, Style
from lmk.runtime.outputs.retouch import Retoucher, whole_tiles
from lmk.runtime.outputs.segments import BT709, ENCODER, Segments
from lmk.runtime.outputs.sink import FileSink, write_errors
from lmk.runtime.outputs.soundtrack import Soundtrack, seconds
from lmk.runtime.sources import Source, colours_of, matrix_and_range


class OverlayVideoSink(FileSink):
    """The source's frames with the landmarks on them, as H.264 in mp4 (yuv420p), with its sound.

    Same size, frame rate and time stamps as the source. H.264's yuv420p has no odd sizes: an odd
    width or height gets one more pixel, a copy of the last, so that no point has to move. work: a
    folder for the segments that `checkpoint` closes, None: nothing outlives a crash. Sound is that
    of a file, as `Soundtrack` gives it, up to the end of the last frame; streams have none.
    names: of the landmarks, for a style that writes or joins them.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str] = (),
        style: Style | None = None,
        work: Path | None = None,
    ) -> None:
        super().__init__(path)
        self._work = work
        self._names, self._style = names, style or Style()
        self._segments: Segments | None = None

    def begin(self, source: Source, path: Path) -> None:
        """Get the encoder ready; raises UserError without libx264 or for a source of images."""
        if ENCODER not in av.codecs_available:
            raise UserError(
                f"{self.path}: got PyAV {av.__version__} without the encoder {ENCODER}; "
                "`pip install --force-reinstall av` brings a build that has it"
            )
        if source.frame_rate is None or source.time_base is None or source.size is None:
            raise UserError(f"{self.path}: got images, expected a video; write an image folder")
        height, width = source.size
        self._size = (height + height % 2, width + width % 2)
        self._time_base, self._frame_s = source.time_base, float(1 / source.frame_rate)
        self._last_tick = -1
        self._temporary = path
        self._painter = Painter(self._names, self._style)
        self._canvas = np.empty((0, 0, 3), np.uint8)
        self._reformatter = VideoReformatter()  # a frame's own is set up anew each time
        self._sound = None if source.start_s is None else Soundtrack(source.path, source.start_s)
        folder = self._work / self.path.stem if self._work else path.with_suffix(".parts")
        self._colours = source.colours or BT709
        self._retouch = Retoucher()
        self._segments = Segments(
            folder,
            self._size,
            source.frame_rate,
            self._time_base,
            self._colours,
            source.pixel_aspect,
        )
        self._is_started = False

    def replay(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Count a frame that a segment holds; see `Sink.replay`."""
        assert self._segments is not None
        self._segments.skip()
        self._painter.follow(detections)
        self._tick_of(frame)

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Draw and encode one frame."""
        native = frame.native
        fits = native is not None and frame.size == self._size
        if fits and colours_of(native) == self._colours:  # else they changed half-way
            picture = self._retouched(native, frame.image, detections)
        else:
            picture = self._convert(self._draw(frame.image, detections))
        picture.pts, picture.time_base = self._tick_of(frame), self._time_base
        with write_errors(self.path):
            self._started().encode(picture)

    def _retouched(
        self, native: av.VideoFrame, image: NDArray[np.uint8], detections: Sequence[Detection]
    ) -> av.VideoFrame:
        """The decoded frame, painted where something is to be seen; nothing else is looked at."""
        if self._canvas.shape != image.shape:
            self._canvas = image.copy()
        window = whole_tiles(image, *self._painter.reach(image, detections))
        self._canvas[window] = image[window]
        self._painter.paint(self._canvas, detections)
        return self._retouch(native, image, self._canvas, window)

    def _draw(self, image: NDArray[np.uint8], detections: Sequence[Detection]) -> NDArray[np.uint8]:
        """The painted copy of an image, of even size, its last row and column repeated."""
        height, width = image.shape[:2]
        drawn = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._painter.paint(drawn[:height, :width], detections)
        drawn[height:, :width] = drawn[height - 1, :width]
        drawn[:, width:] = drawn[:, width - 1 : width]
        return drawn

    def _convert(self, drawn: NDArray[np.uint8]) -> av.VideoFrame:
        matrix, bounds = matrix_and_range(self._colours)
        return self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(drawn, format="rgb24"),
            width=self._size[1],  # a stream may change its size half-way; a file cannot
            height=self._size[0],
            format="yuv420p",
            dst_colorspace=matrix,
            dst_color_range=bounds,
            threads=1,  # half the processor time of the default, which starts one thread a core
        )

    def _tick_of(self, frame: Frame) -> int:
        # Time has to grow: damaged streams repeat stamps.
        self._last_tick = max(self._last_tick + 1, round(frame.time_s / self._time_base))
        return self._last_tick

    def _started(self) -> Segments:
        """The segments, stale ones cleared: after the last `replay` it is known which they are."""
        assert self._segments is not None
        if not self._is_started:
            self._segments.start()
            self._is_started = True
        return self._segments

    def checkpoint(self) -> None:
        """Close the segment; without a `work` folder nothing is to outlive a crash."""
        assert self._segments is not None
        if self._work:
            with write_errors(self.path):
                self._segments.end()

    def end(self) -> None:
        """Close the last segment, join them all with the sound."""
        segments = self._started()
        segments.end()
        end_s = float(max(self._last_tick, 0) * self._time_base) + self._frame_s
        with av.open(str(self._temporary), "w", format="mp4") as container:
            joined = [segments.join(container)]
            if self._sound is not None:
                joined.append(self._sound.join(container, end_s))
            container.start_encoding()
            for packet in heapq.merge(*joined, key=seconds):
                try:
                    container.mux(packet)
                except av.error.InvalidDataError:
                    if packet.stream.type == "video":
                        raise  # of sound, damaged packets are left out
        if self._work is None:
            segments.remove()

    def drop(self) -> None:
        """Leave the whole segments in a `work` folder."""
        if self._segments is not None:
            (self._segments.abort if self._work else self._segments.remove)()
