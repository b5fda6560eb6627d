"""Pictures -> H.264 packets on disk, in segments that are whole or absent and outlive a crash."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av

from lmk.runtime.detection import Colours
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.sink import Pending

ENCODER = "libx264"
BT709: Colours = (1, 1, 1, 1)  # in limited range
_SUFFIX = ".nut"  # FFmpeg's own container: any time base, times that do not start at 0


class Segments:
    """Encodes pictures into files of `folder`, each begun by an encoder of its own.

    So what a segment holds depends on its pictures alone, and packets of segments that different
    runs made fit together. A file is called by the number of pictures before it. size: (height,
    width), both even, of pixels of that aspect (width / height); one tick of the pictures' time
    stamps is `time_base` seconds.
    """

    def __init__(
        self,
        folder: Path,
        size: tuple[int, int],
        rate: Fraction,
        time_base: Fraction,
        colours: Colours,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self._folder, self._size, self._rate, self._time_base = folder, size, rate, time_base
        self._colours, self._pixel_aspect = colours, pixel_aspect
        self._num_pictures = 0
        self._pending: Pending | None = None
        self._container: av.container.OutputContainer | None = None

    def skip(self) -> None:
        """Count a picture that a segment of an earlier run holds."""
        self._num_pictures += 1

    def start(self) -> None:
        """Forget all segments of earlier runs but those that hold the pictures skipped."""
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.suffix == _SUFFIX and not self._is_kept(path):
                path.unlink()
        self._folder.mkdir(parents=True, exist_ok=True)

    def _is_kept(self, path: Path) -> bool:
        return path.stem.isdigit() and int(path.stem) < self._num_pictures

    def encode(self, picture: av.VideoFrame) -> None:
        """Add a picture in yuv420p with its time stamp."""
        if self._container is None:
            self._begin()
        assert self._container is not None
        self._container.mux(self._stream.encode(picture))
        self._num_pictures += 1

    def _begin(self) -> None:
        self._pending = Pending(self._folder / f"{self._num_pictures:09d}{_SUFFIX}")
        self._container = av.open(str(self._pending.temporary), "w", format="nut")
        self._stream = self._add_encoder(self._container)

    def _add_encoder(self, container: av.container.OutputContainer) -> av.VideoStream:
        # The model needs the cores more: half the work of "superfast" for twice as many bytes.
        threads = 1 + math.prod(self._size) // 500_000
        options = {"preset": "ultrafast", "crf": "20", "threads": str(threads)}
        stream = container.add_stream(ENCODER, rate=self._rate, options=options)
        stream = cast("av.VideoStream", stream)
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        stream.time_base = context.time_base = self._time_base
        context.sample_aspect_ratio = self._pixel_aspect
        context.colorspace, context.color_range = self._colours[:2]
        context.color_primaries, context.color_trc = self._colours[2:]
        return stream

    def end(self) -> None:
        """Finish the segment that is being written, if one is."""
        if self._container is None or self._pending is None:
            return
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._pending.finish()
        self._container = self._pending = None

    def join(self, container: av.container.OutputContainer) -> Iterator[av.Packet]:
        """Add the video stream to `container`; gives its packets, in order, as they are.

        They raise UserError at their end when segments of the earlier run are missing.
        """
        if not self._files():
            stream = self._add_encoder(container)  # of no picture
            return self._packets(stream)
        with av.open(str(self._files()[0])) as first:
            stream = container.add_stream_from_template(first.streams.video[0])
        stream.time_base = self._time_base
        return self._packets(stream)

    def _packets(self, stream: av.VideoStream) -> Iterator[av.Packet]:
        num_packets = 0
        for path in self._files():
            for packet in _packets(path):
                packet.stream = stream
                num_packets += 1
                yield packet
        if num_packets != self._num_pictures:
            raise UserError(
                f"{self._folder}: got {num_packets} frames of the overlay, expected "
                f"{self._num_pictures}; run again without --resume"
            )

    def _files(self) -> list[Path]:
        return sorted(path for path in self._folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())

    def abort(self) -> None:
        """Remove what is not a whole segment yet; harmless at any time."""
        if self._container is not None:
            with contextlib.suppress(Exception):  # what broke it may break its end as well
                self._container.close()
            self._container = None
        if self._pending is not None:
            self._pending.discard()
            self._pending = None

    def remove(self) -> None:
        """Remove them all."""
        self.abort()
        shutil.rmtree(self._folder, ignore_errors=True)


def _packets(path: Path) -> Iterator[av.Packet]:
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                # FFmpeg gives none where pictures are two seconds and more apart. Without B-frames,
                # which the encoder's preset leaves out, they are coded as they are shown.
                packet.dts = packet.pts if packet.dts is None else packet.dts
                yield packet
