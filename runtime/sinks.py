"""Detections -> files: CSV, overlay video, overlay images. Whole files or none."""

from __future__ import annotations

import contextlib
import csv
import math
import shutil
import uuid
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lmk.runtime.draw import draw
from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path, write_error
from lmk.runtime.images import IMAGE_SUFFIXES
from lmk.runtime.landmarker import Detection
from lmk.runtime.sources import Frame, Source

if TYPE_CHECKING:
    import av

_ENCODER = "libx264"
_BT709, _LIMITED_RANGE = 1, 1  # numbers of H.264 and FFmpeg: matrix, primaries and curve; range
MARK = ("Software", "lmk")  # in our PNGs: only they are ever cleared away


class Sink(Protocol):
    """Takes every frame of one source with what was found in it.

    open -> replay … -> write … -> close (the file appears) or abort (nothing appears). All may
    raise UserError; only close and abort may follow one. Calls come from one thread at a time.
    replaces: from open on, whether close takes the place of earlier results.
    """

    replaces: bool = False

    def open(self, source: Source) -> None:
        """Get ready for the frames of `source`."""
        ...

    def replay(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add a frame that an interrupted run had done before its last `checkpoint`.

        Its image has the right shape and no content: a sink of pictures has kept its own.
        """
        self.write(frame, detections)

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add one frame with its objects: none, one or several, one `track` each."""
        ...

    def checkpoint(self) -> None:
        """Make sure that what cannot be replayed survives a crash.

        Called between the same frames in every run: in a resumed one also between the replayed
        frames, where it only has to count what an earlier run has kept.
        """

    def close(self) -> None:
        """Finish the file under its final name."""
        ...

    def abort(self) -> None:
        """Remove what was written, but not what `checkpoint` kept; harmless at any time."""
        ...


class _Pending:
    """A file on its way: `atomic_path` spread over open, close and abort."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._context = atomic_path(path)
        self.temporary = self._context.__enter__()

    def finish(self) -> None:
        self._context.__exit__(None, None, None)

    def discard(self) -> None:
        self._context.__exit__(_Discarded, _Discarded(), None)


class _Discarded(Exception):
    """Tells `atomic_path` to remove the file."""


class CsvSink(Sink):
    """One row per object and frame: source, frame, time_s, track, the box, then x, y, score of each landmark.

    Boxes as x, y, width, height (edges); points in frame pixels, centre of the top-left one (0, 0).
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = path
        self._header = ["source", "frame", "time_s", "track", "box_x", "box_y", "box_w", "box_h"]
        self._header += [f"{name}_{value}" for name in names for value in ("x", "y", "score")]
        self._pending: _Pending | None = None

    def open(self, source: Source) -> None:
        """Start the file with its header."""
        self.replaces = self.replaces or self.path.exists()
        self._pending = _Pending(self.path)
        with _write_errors(self.path):
            temporary = self._pending.temporary
            self._file = open(temporary, "w", newline="", encoding="utf-8")  # noqa: SIM115
            self._writer = csv.writer(self._file, lineterminator="\n")
            self._writer.writerow(self._header)

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add a row for each object of one frame."""
        with _write_errors(self.path):
            self._writer.writerows(_row(frame, detection) for detection in detections)

    def close(self) -> None:
        """Flush and rename."""
        assert self._pending is not None
        with _write_errors(self.path):
            self._file.close()
        self._pending.finish()
        self._pending = None

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._pending is not None:
            with contextlib.suppress(OSError):  # the disk may be full: that was said already
                self._file.close()
            self._pending.discard()
            self._pending = None


def _row(frame: Frame, detection: Detection) -> list[Any]:
    row = [frame.source, frame.index, f"{frame.time_s:.6f}", detection.track]
    row += [f"{value:g}" for value in detection.box]
    for (x, y), score in zip(detection.points.tolist(), detection.scores.tolist(), strict=True):
        row += [f"{x:.3f}", f"{y:.3f}", f"{score:.4f}"]
    return row


class OverlayVideoSink(Sink):
    """The source's frames with the landmarks on them, as H.264 in mp4 (yuv420p, no sound).

    Same size, frame rate and time stamps as the source. H.264's yuv420p has no odd sizes: an odd
    width or height gets one more pixel, a copy of the last, so that no point has to move.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: _Pending | None = None
        self._container: av.container.OutputContainer | None = None

    def open(self, source: Source) -> None:
        """Start the encoder; raises UserError without libx264 or for a source of images."""
        import av
        from av.video.reformatter import VideoReformatter

        if _ENCODER not in av.codecs_available:
            raise UserError(
                f"{self.path}: got PyAV {av.__version__} without the encoder {_ENCODER}; "
                "`pip install --force-reinstall av` brings a build that has it"
            )
        if source.frame_rate is None or source.time_base is None or source.size is None:
            raise UserError(f"{self.path}: got images, expected a video; write an image folder")
        _check_not_source(self.path, source)
        self.replaces = self.replaces or self.path.exists()
        height, width = source.size
        self._size = (height + height % 2, width + width % 2)
        self._time_base: Fraction = source.time_base
        self._last_tick = -1
        self._reformatter = VideoReformatter()  # a frame's own is set up anew each time
        self._pending = _Pending(self.path)
        with _write_errors(self.path):
            self._container = av.open(str(self._pending.temporary), "w", format="mp4")
            self._stream = _add_stream(self._container, source.frame_rate, math.prod(self._size))
            self._configure(self._stream)

    def _configure(self, stream: av.VideoStream) -> None:
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Draw and encode one frame."""
        import av

        assert self._container is not None
        drawn = _even(_drawn(frame, detections))
        picture = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(drawn, format="rgb24"),
            width=self._size[1],  # a stream may change its size half-way; a file cannot
            height=self._size[0],
            format="yuv420p",
            dst_colorspace=_BT709,
            dst_color_range=_LIMITED_RANGE,
            threads=1,  # half the processor time of the default, which starts one thread a core
        )
        # Time has to grow: damaged streams repeat stamps.
        self._last_tick = max(self._last_tick + 1, round(frame.time_s / self._time_base))
        picture.pts, picture.time_base = self._last_tick, self._time_base
        with _write_errors(self.path):
            self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Flush the encoder, write the index, rename."""
        assert self._container is not None and self._pending is not None
        with _write_errors(self.path):
            self._container.mux(self._stream.encode(None))
            self._container.close()
        self._pending.finish()
        self._pending = self._container = None

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._container is not None:
            with contextlib.suppress(Exception):  # what broke it may break its end as well
                self._container.close()
            self._container = None
        if self._pending is not None:
            self._pending.discard()
            self._pending = None


class OverlayImageSink(Sink):
    """One PNG per image under `folder`, each under its own relative name; all appear at close.

    `cat.jpg` gives `cat.jpg.png`, `cat.png` stays, `cat.jpg.png` gives `cat.jpg.png.png`: no name
    is given twice. Frames of a video are numbered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: set[Path] = set()  # relative to `folder`
        self._temporary: Path | None = None

    def open(self, source: Source) -> None:
        """Start a hidden folder beside `folder`."""
        _check_not_source(self.folder, source)
        self.replaces = self.replaces or self.folder.exists()
        self._numbered = source.frame_rate is not None
        self._temporary = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex[:8]}")
        with _write_errors(self.folder):
            self._temporary.mkdir(parents=True)

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Draw and save one frame."""
        assert self._temporary is not None
        name, picture, mark = self._name_of(frame), _drawn(frame, detections), PngInfo()
        mark.add_text(*MARK)
        with atomic_path(self._temporary / name) as path:
            # Level 1: much faster than the default, for slightly larger files.
            Image.fromarray(picture).save(path, compress_level=1, pnginfo=mark)
        self.written.add(name)

    def _name_of(self, frame: Frame) -> Path:
        name = Path(frame.source)
        if self._numbered:
            return name.with_name(f"{name.stem}_{frame.index:06d}.png")
        if name.suffix.lower() == ".png" and Path(name.stem).suffix.lower() not in IMAGE_SUFFIXES:
            return name
        return name.with_name(name.name + ".png")

    def close(self) -> None:
        """Move the pictures to `folder`: as a whole where there is none, else one by one."""
        assert self._temporary is not None
        with _write_errors(self.folder):
            if not self.folder.exists():
                self._temporary.rename(self.folder)
            for name in self.written if self._temporary.exists() else ():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self._temporary / name).replace(self.folder / name)
        self.abort()

    def abort(self) -> None:
        """Remove the hidden folder."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


def _add_stream(container: av.container.OutputContainer, rate: Fraction, pixels: int) -> Any:
    # The model needs the cores more: half the work of "superfast" for twice as many bytes.
    options = {"preset": "ultrafast", "crf": "20", "threads": str(1 + pixels // 500_000)}
    return container.add_stream(_ENCODER, rate=rate, options=options)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into the UserError that names `path`."""
    try:
        yield
    except OSError as error:  # FFmpeg's "no space left" is one too
        raise write_error(path, error) from error


def _check_not_source(output: Path, source: Source) -> None:
    """Raise UserError when the output would take the place of what is being read."""
    if output.resolve() in (source.path.resolve(), source.path.resolve().parent):
        raise UserError(
            f"{output}: got an output in the place of the source, expected another name; "
            "choose one with --output"
        )


def _drawn(frame: Frame, detections: Sequence[Detection]) -> NDArray[np.uint8]:
    image = frame.image
    for detection in detections:
        image = draw(image, detection)
    return image


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    odd = image.shape[0] % 2, image.shape[1] % 2
    return np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else image
