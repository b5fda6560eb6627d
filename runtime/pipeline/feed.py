"""One source -> frames with their crops, read ahead of the model in a thread of its own."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.finder import Finder
from lmk.runtime.pipeline.threads import Channel, Stopped, Worker
from lmk.runtime.regions import Region, Target
from lmk.runtime.sources import Source

if TYPE_CHECKING:
    from lmk.runtime.pipeline.smooth import Smoother
from lmk.runtime.detection import Found
from lmk.runtime.pipeline.summary import STAGES

CHUNK = 512  # frame numbers between two places where an interrupted run can go on
# A batch closes early at this many bytes of frames: five batches are alive at most.
_BATCH_BYTES = 64 << 20


@dataclass
class Batch:
    """Frames that go through the model together, with the crops of their objects in order."""

    frames: list[Frame] = field(default_factory=list)
    targets: list[Sequence[Target]] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)  # of the region before each frame, or None
    crops: list[NDArray[np.uint8]] = field(default_factory=list)


class Feed:
    """What one source has ready for the model, and what becomes of the model's answers.

    A thread decodes and, where the region does not need what was found before, crops. live: play a
    file at its own rate, and drop frames that come while the model is busy.
    busy: seconds of work of each of STAGES. error: what ended the source early, if anything did.
    """

    def __init__(
        self,
        source: Source,
        region: Region,
        finder: Finder,
        batch_size: int,
        smoother: Smoother | None = None,
        live: bool = False,
        changed: threading.Condition | None = None,
    ) -> None:
        self.source, self._region, self._smoother = source, region, smoother
        self._finder, self._live = finder, live
        self._batch_size = 1 if region.closed or live else batch_size
        self._ahead = not (region.closed or live)
        self._channel: Channel[Batch | None] = Channel(changed, latest=live)
        self._worker = Worker(self._read)
        self._chunk: int | None = None
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.error: Exception | None = None
        self.ended = False

    def start(self) -> None:
        """Begin to read."""
        # A program that ends by an error may leave a suspended generator to the end of Python,
        # when threads do not run any more and could not be waited for.
        atexit.register(self.stop)
        self._worker.start()

    @property
    def ready(self) -> bool:
        """Whether `take` returns at once."""
        return self._channel.ready

    @property
    def dropped(self) -> int:
        """Frames of a live source that came while the model was busy."""
        return self._channel.dropped

    def state(self) -> dict[str, Any]:
        """What the region and the smoother remember now, as JSON values."""
        smoother = self._smoother.state() if self._smoother else None
        return {"region": self._region.state(), "smoother": smoother}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; before `start`."""
        self._region.restore(state["region"])
        if self._smoother:
            self._smoother.restore(state["smoother"])

    def take(self) -> Batch | None:
        """The next frames and their crops; None at the end, which sets `ended`."""
        try:
            batch = self._channel.get()
        except Stopped:
            batch = None
        self.ended = batch is None
        if batch is not None and not self._ahead:
            try:
                with timed(self.busy, "crop"):
                    self._cut(batch)
            except Exception as error:
                self.error, self.ended, batch = error, True, None
        return batch

    def give(self, batch: Batch, detections: Sequence[Detection]) -> list[Found]:
        """What was found in the crops of a batch, in order -> what was found in its frames."""
        rest = iter(detections)
        found = []
        for frame, targets, state in zip(batch.frames, batch.targets, batch.states, strict=True):
            in_frame: Sequence[Detection] = [
                replace(next(rest), track=target.track) for target in targets
            ]
            if self._region.closed:
                in_frame = self._region.update(frame, in_frame)
            before = None
            if state is not None:
                smoother = self._smoother.state() if self._smoother else None
                before = {"region": state[0], "smoother": smoother}
            if self._smoother:
                in_frame = self._smoother(frame, in_frame)
            found.append(Found(frame, in_frame, before))
        return found

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._channel.stop()
        self._worker.join()
        atexit.unregister(self.stop)

    def _read(self) -> None:
        """The thread."""
        try:
            for frames in self._batches():
                batch = Batch(frames)
                if self._ahead:
                    with timed(self.busy, "crop"):
                        self._cut(batch)
                self._channel.put(batch)
        except Stopped:
            return
        except Exception as error:
            self.error = error
        with suppress(Stopped):
            self._channel.put(None, wait=True)

    def _batches(self) -> Iterator[list[Frame]]:
        frames: list[Frame] = []
        started = time.perf_counter()
        source = iter(self.source)
        while True:
            with timed(self.busy, "decode"):
                frame = next(source, None)
            if frame is None:
                break
            if self._live and not self.source.is_live:
                time.sleep(max(0.0, started + frame.time_s - time.perf_counter()))
            # The same batches whether or not an earlier run was interrupted: none spans two chunks.
            if frames and frame.index // CHUNK != frames[0].index // CHUNK:
                yield frames
                frames = []
            frames.append(frame)
            if len(frames) == self._batch_size or _num_bytes(frames) >= _BATCH_BYTES:
                yield frames
                frames = []
        if frames:
            yield frames

    def _cut(self, batch: Batch) -> None:
        """Ask the region where to look, and crop."""
        for frame in batch.frames:
            chunk = frame.index // CHUNK
            new = self._chunk is not None and chunk != self._chunk
            self._chunk = chunk
            batch.states.append((self._region.state(),) if new else None)
            targets = self._region.targets(frame)
            batch.targets.append(targets)
            batch.crops += [self._finder.crop(frame.image, each.box) for each in targets]


def run_ready(
    feeds: Sequence[Feed], finder: Finder, batch_size: int
) -> list[tuple[Feed, list[Found]]]:
    """Run what the feeds have ready, in one go, until `batch_size` crops are together.

    The caller has made sure that a feed is ready. A feed that has ended gives no frames.
    """
    taken: list[tuple[Feed, Batch]] = []
    for feed in feeds:
        if feed.ready and sum(len(batch.crops) for _, batch in taken) < batch_size:
            batch = feed.take()
            taken.append((feed, batch or Batch()))
    crops = [crop for _, batch in taken for crop in batch.crops]
    boxes = [each.box for _, batch in taken for targets in batch.targets for each in targets]
    start = time.perf_counter()
    detections = finder.locate(np.stack(crops), boxes) if crops else []
    seconds = time.perf_counter() - start
    results, first = [], 0
    for feed, batch in taken:
        end = first + len(batch.crops)
        feed.busy["run"] += seconds * len(batch.crops) / max(len(crops), 1)
        results.append((feed, feed.give(batch, detections[first:end])))
        first = end
    return results


@contextmanager
def timed(busy: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that the block takes to `busy[stage]`."""
    start = time.perf_counter()
    yield
    busy[stage] += time.perf_counter() - start


def _num_bytes(frames: Sequence[Frame]) -> int:
    return sum(frame.image.nbytes for frame in frames)
