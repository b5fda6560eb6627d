"""Source -> landmarks -> sinks: decoding, the model and writing at the same time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.boxes import Roi
from lmk.runtime.images import Box
from lmk.runtime.landmarker import Detection, Landmarker
from lmk.runtime.sinks import Sink
from lmk.runtime.sources import Frame, Source

# A batch closes early at this many bytes of frames: five batches are alive at most.
_BATCH_BYTES = 64 << 20
STAGES = ("decode", "crop", "run", "write")
T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """What one pass over a source did."""

    frames: int
    seconds: float
    frames_per_second: float
    skipped: list[str]  # see Source.skipped
    mean_score: float  # over all landmarks of all frames; 0 without frames
    busy_seconds: dict[str, float]  # per stage of STAGES, wall clock, waiting for others left out


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; what was found before it is in the sinks' files, unless earlier ones are there.

    `str` of it is one line for the user. untouched: earlier results were kept in its place.
    """

    def __init__(self, summary: Summary, untouched: bool = False) -> None:
        frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
        kept = "the earlier results are untouched" if untouched else "what was found is kept"
        super().__init__(f"interrupted after {frames}; {kept}")
        self.summary = summary


def detect(
    source: Source,
    landmarker: Landmarker,
    roi: Roi,
    sinks: Sequence[Sink],
    batch_size: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Find the landmarks in every frame of `source` and give them to every sink, in order.

    Decoding and cropping, the model, and the sinks each have a thread (the model the caller's).
    progress: called from the caller's thread with the number of frames the model has done.
    An error of any stage stops the others, aborts the sinks and is raised. Ctrl-C writes what the
    model has done, closes the sinks (aborts those that would replace earlier results: see
    Sink.replaces) and raises Interrupted, a KeyboardInterrupt.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected 1 or more")
    run = _Run(source, landmarker, roi, sinks, batch_size)
    return run(progress or (lambda frames: None))


@dataclass
class _Batch:
    frames: list[Frame] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    num_bytes: int = 0


class _Stopped(Exception):
    """The other end of a channel is gone: this stage ends without an error of its own."""


class _Channel(Generic[T]):
    """Hands items from one thread to another; `put` waits while one lies there already."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = False

    def put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._items)
            if self._stopped:
                raise _Stopped
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._items)
            if self._stopped:
                raise _Stopped
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class _Worker(threading.Thread):
    """A thread whose end can be waited for again after Ctrl-C broke into the wait.

    Before Python 3.13 Thread.join, broken into, takes the thread for ended though it still runs.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, daemon=True)
        self._done = threading.Event()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._done.set()

    def join(self, timeout: float | None = None) -> None:
        self._done.wait(timeout)
        super().join(timeout)


class _Run:
    """The state of one `detect`."""

    def __init__(
        self,
        source: Source,
        landmarker: Landmarker,
        roi: Roi,
        sinks: Sequence[Sink],
        batch_size: int,
    ) -> None:
        self._source, self._landmarker, self._roi = source, landmarker, roi
        self._sinks, self._batch_size = sinks, batch_size
        # None: no more follows
        self._cropped: _Channel[_Batch | None] = _Channel()
        self._found: _Channel[tuple[list[Frame], list[Detection]] | None] = _Channel()
        self._error: BaseException | None = None
        self._partial = False  # Ctrl-C came before the last frame
        self._busy = dict.fromkeys(STAGES, 0.0)
        self._num_frames, self._score_sum, self._num_scores = 0, 0.0, 0
        self._started = time.perf_counter()

    def __call__(self, progress: Callable[[int], None]) -> Summary:
        reader = _Worker(lambda: self._guard(self._read))
        writer = _Worker(lambda: self._guard(self._write))
        interrupted = located = False
        try:
            reader.start()
            writer.start()
            try:
                self._guard(lambda: self._locate_all(progress))
                located = True
                self._finish(reader, writer)
            except KeyboardInterrupt:
                interrupted, self._partial = True, not located
                self._finish(reader, writer)
        except BaseException:  # also a second Ctrl-C
            self._stop(reader, writer)
            for sink in self._sinks:
                sink.abort()
            raise
        if interrupted:
            untouched = self._partial and any(sink.replaces for sink in self._sinks)
            raise Interrupted(self._summary(), untouched)
        return self._summary()

    def _finish(self, reader: threading.Thread, writer: threading.Thread) -> None:
        """Let the writer end what the model has done; called again if Ctrl-C breaks into it."""
        self._cropped.stop()
        reader.join()
        self._guard(lambda: self._found.put(None))
        writer.join()
        if self._error is not None:
            raise self._error

    def _stop(self, reader: threading.Thread, writer: threading.Thread) -> None:
        self._cropped.stop()
        self._found.stop()
        for thread in (reader, writer):
            if thread.ident is not None:  # started
                thread.join()

    def _guard(self, stage: Callable[[], None]) -> None:
        """Run a stage; its error is kept for the caller and stops the other stages."""
        try:
            stage()
        except _Stopped:
            pass  # another stage has ended the run, and keeps the reason if there is one
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._error = self._error or error
            self._cropped.stop()
            self._found.stop()

    def _read(self) -> None:
        """Thread 1: decode and crop."""
        batch = _Batch()
        frames = iter(self._source)
        while True:
            with self._timed("decode"):
                frame = next(frames, None)
            if frame is None:
                break
            with self._timed("crop"):
                self._add(batch, frame)
            if len(batch.frames) == self._batch_size or batch.num_bytes >= _BATCH_BYTES:
                self._cropped.put(batch)
                batch = _Batch()
        if batch.frames:
            self._cropped.put(batch)
        self._cropped.put(None)

    def _add(self, batch: _Batch, frame: Frame) -> None:
        height, width = frame.image.shape[:2]
        box = self._roi(height, width, frame.index)
        batch.frames.append(frame)
        batch.boxes.append(box)
        batch.crops.append(self._landmarker.crop(frame.image, box))
        batch.num_bytes += frame.image.nbytes

    def _locate_all(self, progress: Callable[[int], None]) -> None:
        """The caller's thread: run the model."""
        num_done = 0
        while (batch := self._cropped.get()) is not None:
            with self._timed("run"):
                detections = self._landmarker.locate(np.stack(batch.crops), batch.boxes)
            self._found.put((batch.frames, detections))
            num_done += len(detections)
            progress(num_done)

    def _write(self) -> None:
        """Thread 2: feed the sinks. They are closed here, where no Ctrl-C can break into it."""
        for sink in self._sinks:
            sink.open(self._source)
        while (found := self._found.get()) is not None:
            with self._timed("write"):
                for frame, detection in zip(*found, strict=True):
                    self._write_one(frame, detection)
        with self._timed("write"):
            for sink in self._sinks:
                if self._partial and sink.replaces:
                    sink.abort()
                else:
                    sink.close()

    def _write_one(self, frame: Frame, detection: Detection) -> None:
        for sink in self._sinks:
            sink.write(frame, detection)
        self._num_frames += 1
        self._score_sum += float(detection.scores.sum())
        self._num_scores += detection.scores.size

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._busy[stage] += time.perf_counter() - start

    def _summary(self) -> Summary:
        seconds = time.perf_counter() - self._started
        return Summary(
            frames=self._num_frames,
            seconds=seconds,
            frames_per_second=self._num_frames / seconds,
            skipped=self._source.skipped,
            mean_score=self._score_sum / max(self._num_scores, 1),
            busy_seconds=dict(self._busy),
        )
