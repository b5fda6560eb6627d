"""A film or a folder of images -> any picture of it, by its number, quickly."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder, printable, write_bytes
from lmk.runtime.images import open_image, read_image, to_rgb
from lmk.runtime.sources import Source, open_source

Pixels = NDArray[np.uint8]  # HWC RGB
THUMB_PX = 240  # longer side
_READ_ON = 48  # frames: one that is so far ahead is reached by reading on
_READ_ON_SMALL = 200  # where nobody waits for the one, but for all of them
_BACK = 48  # frames to keep before one that was jumped back to: more are likely to be wanted
_JPEGS_BYTES = 96 << 20
_RAW_FRAMES = 3


def jpeg(
    picture: Pixels | av.VideoFrame,
    width: int | None = None,
    quality: int = 85,
    scaler: VideoReformatter | None = None,
) -> bytes:
    """HWC uint8 RGB, or a frame as it was decoded, as a JPEG; at most `width` pixels wide.

    scaler: for frames of one size, from one thread at a time: else it is set up for each.
    """
    if isinstance(picture, np.ndarray) and (width is None or picture.shape[1] <= width):
        image = Image.fromarray(picture)
    else:
        # FFmpeg's takes an eighth of the time of Pillow's, and makes RGB of YUV on the way.
        if isinstance(picture, np.ndarray):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        width = min(width or picture.width, picture.width)
        height = max(1, round(picture.height * width / picture.width))
        scaler = scaler or VideoReformatter()
        small = scaler.reformat(
            picture, width, height, "rgb24", interpolation=Interpolation.AREA, threads=1
        )
        image = Image.fromarray(small.to_ndarray())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


class Pictures:
    """The pictures of one source, numbered from 0; any number of threads may ask at once."""

    has_time: bool  # whether neighbours are neighbours in time

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        raise NotImplementedError

    def file(self, number: int) -> Path:
        """Where the picture is; raises UserError for one that is not there."""
        return self.path

    def label(self, number: int) -> str:
        """What results call the picture's source."""
        raise NotImplementedError

    def title(self, number: int) -> str:
        """What people call the picture."""
        raise NotImplementedError

    def image(self, number: int) -> Pixels:
        """The picture as it is; raises UserError for one that is not there or cannot be read."""
        raise NotImplementedError

    def jpeg(self, number: int, width: int) -> bytes:
        """The picture, at most `width` pixels wide, for looking at; raises as `image`."""
        return jpeg(self.image(number), width)

    def thumbnail(self, number: int) -> bytes:
        """A small JPEG, made once for all times; raises as `image`."""
        made_of = self.file(number)
        changed = made_of.stat().st_mtime_ns if made_of.exists() else 0  # told by `small`
        key = f"{made_of.resolve()} {changed} {self.title(number)}"
        file = cache_folder() / "thumbnails" / f"{hashlib.sha256(key.encode()).hexdigest()}.jpg"
        if not file.is_file():
            write_bytes(file, self.small(number))
        return file.read_bytes()

    def small(self, number: int) -> bytes:
        """The picture as a small JPEG; raises as `image`."""
        return jpeg(self.image(number), THUMB_PX)

    def frame(self, number: int) -> Frame:
        """The picture as regions take it."""
        return Frame(self.label(number), number, 0.0, self.image(number))


class Images(Pictures):
    """Files in a folder."""

    has_time = False

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path)
        self.files = files
        self._last: tuple[int, Pixels] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def label(self, number: int) -> str:
        """See `Pictures`."""
        return self.title(number)

    def title(self, number: int) -> str:
        """See `Pictures`."""
        file = self.file(number)
        if file == self.path:
            return printable(file.name)
        return printable(file.as_posix().removeprefix(f"{self.path.as_posix().rstrip('/')}/"))

    def image(self, number: int) -> Pixels:
        """See `Pictures`."""
        last = self._last
        if last is None or last[0] != number:
            last = self._last = (number, read_image(self.file(number), page=0))
        return last[1]

    def small(self, number: int) -> bytes:
        """See `Pictures`: of a JPEG no more is decoded than is needed."""
        file = self.file(number)
        with open_image(file) as image:
            image.draft("RGB", (THUMB_PX, THUMB_PX))
            return jpeg(to_rgb(image, file), THUMB_PX)

    def file(self, number: int) -> Path:
        """See `Pictures`."""
        if not 0 <= number < len(self.files):
            raise UserError(f"{self.path}: got picture {number}, expected 0 to {len(self) - 1}")
        return self.files[number]


class _Reader:
    """A film that is read on, or opened again to jump."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self._source: Source | None = None
        self._frames: Iterator[Frame] = iter(())
        self._next = 0  # the least number that the next frame read can have

    def read(self, number: int, read_on: int, back: int = 0) -> Iterator[Frame]:
        """The frames that are read up to frame `number`, which is the last.

        read_on: how many frames ahead it may be for no jump; back: how many frames to begin before
        it, where it is behind. Raises UserError for a frame that is not there or cannot be read.
        """
        if not 0 <= number < self.count:
            raise UserError(f"{self.path}: got frame {number}, expected 0 to {self.count - 1}")
        if self._source is None or not self._next <= number <= self._next + read_on:
            back = min(number, back) if number < self._next else 0
            self.close()
            self._source = open_source(self.path)
            if number > back:
                self._source.resume_after(number - back - 1)
            self._frames, self._next = iter(self._source), number - back
        for frame in self._frames:
            self._next = frame.index + 1
            if frame.index <= number:
                yield frame
            if frame.index == number:
                return
            if frame.index > number:
                break
        else:
            self.close()  # at its end: whatever is wanted is behind
        raise UserError(f"{self.path}: frame {number} cannot be read; take another")

    def close(self) -> None:
        """Let the film go until more of it is wanted."""
        if self._source is not None:
            self._source.close()
        self._source = None


class Film(Pictures):
    """Frames of a film: read on where that is near, else from the key frame before.

    JPEGs are kept up to _JPEGS_BYTES, whole frames only the last few. For whoever goes backwards
    the frames before are read in a thread of its own; and so are all thumbnails that are wanted, in
    the order of the film and beside its frames, for which a jump there and back would be too slow.
    """

    has_time = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._reading = threading.Lock()  # of the source: held for as long as a jump takes
        self._raw: OrderedDict[int, Frame] = OrderedDict()
        self._scaler = VideoReformatter()
        self._lock = threading.Lock()  # of what follows
        self._jpegs: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._asked = 0  # the number that was asked for last
        self._goes_back = False  # a thread reads what is before
        self._wanted: dict[int, Future[bytes]] = {}  # thumbnails, by number
        with open_source(path) as source:
            count, self.size, rate = source.num_frames, source.size, source.frame_rate
            self.rate = float(rate or 25)
            self.count = count if count else sum(1 for _ in source)
        self._reader = _Reader(path, self.count)

    def __len__(self) -> int:
        return self.count

    def label(self, number: int) -> str:
        """See `Pictures`."""
        return printable(self.path.name)

    def title(self, number: int) -> str:
        """See `Pictures`."""
        return f"frame {number}"

    def image(self, number: int) -> Pixels:
        """See `Pictures`."""
        with self._reading:
            if number not in self._raw:
                self._read(number, None)
            return self._raw[number].image

    def jpeg(self, number: int, width: int) -> bytes:
        """See `Pictures`."""
        data = self._kept(number, width)
        if data is None:
            with self._reading:
                data = self._kept(number, width)  # by another thread meanwhile
                if data is None:
                    if number not in self._raw:
                        self._read(number, width)
                    data = self._keep(self._raw[number], width)
        with self._lock:
            backwards, self._asked = number < self._asked, number
            before = number - _BACK // 2
            ahead = backwards and before >= 0 and (before, width) not in self._jpegs
            if ahead and not self._goes_back:
                self._goes_back = True
                threading.Thread(target=self._read_back, args=(before, width), daemon=True).start()
        return data

    def small(self, number: int) -> bytes:
        """See `Pictures`."""
        with self._lock:
            is_first = not self._wanted
            future = self._wanted.setdefault(number, Future())
            if is_first:
                threading.Thread(target=self._make_small, daemon=True).start()
        return future.result()

    def _make_small(self) -> None:
        """Make what is wanted, and what comes to be meanwhile, from the first frame to the last."""
        reader, scaler, after = _Reader(self.path, self.count), VideoReformatter(), -1
        while True:
            with self._lock:
                after = min((n for n in self._wanted if n > after), default=min(self._wanted))
                future = self._wanted[after]
            try:
                frame = deque(reader.read(after, _READ_ON_SMALL), 1)[0]
                picture = frame.image if frame.native is None else frame.native
                future.set_result(jpeg(picture, THUMB_PX, scaler=scaler))
            except Exception as error:  # told to whoever asked
                future.set_exception(error)
            with self._lock:
                del self._wanted[after]
                if not self._wanted:
                    return reader.close()

    def _read_back(self, number: int, width: int) -> None:
        try:
            with self._reading:
                if self._kept(number, width) is None:
                    self._read(number, width)
        except UserError:  # told when that frame is asked for
            pass
        finally:
            self._goes_back = False

    def _read(self, number: int, width: int | None) -> None:
        """Read frame `number`; with a width, keep it and what is read on the way as JPEGs."""
        for frame in self._reader.read(number, _READ_ON, _BACK if width else 0):
            if width is not None and number - frame.index <= _BACK:
                self._keep(frame, width)
        self._raw[number] = frame
        while len(self._raw) > _RAW_FRAMES:
            self._raw.popitem(last=False)

    def _kept(self, number: int, width: int) -> bytes | None:
        with self._lock:
            if (number, width) in self._jpegs:
                self._jpegs.move_to_end((number, width))
            return self._jpegs.get((number, width))

    def _keep(self, frame: Frame, width: int) -> bytes:
        if (data := self._kept(frame.index, width)) is not None:
            return data
        picture = frame.image if frame.native is None else frame.native
        data = jpeg(picture, width, 80, self._scaler)
        with self._lock:
            self._bytes += len(data)
            self._jpegs[frame.index, width] = data
            while self._bytes > _JPEGS_BYTES:
                self._bytes -= len(self._jpegs.popitem(last=False)[1])
        return data
