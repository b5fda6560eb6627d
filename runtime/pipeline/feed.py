"""What happens to a frame: decoded, cropped, run, mapped back, steadied. Sources in, found out."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection, Found, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.pipeline.smooth import Smoother
from lmk.runtime.pipeline.summary import STAGES
from lmk.runtime.pipeline.threads import Channel, Stopped, Thread
from lmk.runtime.regions import Region, Target
from lmk.runtime.sources import CutDetector, Source

CHUNK = 512  # frame numbers between two places where an interrupted run can go on
# A batch closes early at this many bytes of frames: five batches are alive at most.
_BATCH_BYTES = 64 << 20


@dataclass
class Batch:
    """Frames that go through the model together, with the crops of their objects in order."""

    frames: list[Frame] = field(default_factory=list)
    targets: list[Sequence[Target]] = field(default_factory=list)
    before: list[dict[str, Any] | None] = field(default_factory=list)  # of each: see `Found`
    crops: list[NDArray[np.uint8]] = field(default_factory=list)


class Feed:
    """One source on its way through `follow`: where its objects are, what is remembered of them.

    A thread decodes and, where the region does not need what was found before, crops. live: play a
    file at its own rate, and drop frames that come while the model is busy. changed: shared by all
    feeds that are followed together.
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
        self.source, self.region, self.smoother = source, region, smoother
        self.changed = changed or threading.Condition()
        self.ahead = not (region.closed or live)  # crops are cut before the model is ready for them
        self._finder, self._live = finder, live
        self._batch_size = batch_size if self.ahead else 1
        self._is_cut = CutDetector() if region.closed or smoother else None
        self._channel: Channel[Batch | None] = Channel(self.changed, latest=live)
        self._thread = Thread(self._read)
        self._chunk: int | None = None
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.error: Exception | None = None
        self.ended = False

    def start(self, state: Any = None) -> None:
        """Begin to read; go on where `state`, a `Found.before`, was taken.

        Raises UserError for a state that is none.
        """
        if state is not None:
            try:
                self.region.restore(state["region"])
                if self._is_cut:
                    self._is_cut.restore(state["cuts"])
                if self.smoother:
                    self.smoother.restore(state["smoother"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{self.source.path}: got a damaged journal, expected what its interrupted run "
                    f"remembered ({error}); start anew with --force"
                ) from error
        # A program that ends by an error may leave a suspended generator to the end of Python,
        # when threads do not run any more and could not be waited for.
        atexit.register(self.stop)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether `take` returns at once."""
        return self._channel.ready

    @property
    def dropped(self) -> int:
        """Frames of a live source that came while the model was busy."""
        return self._channel.dropped

    def take(self) -> Batch:
        """The next frames and their crops; none at the end, which sets `ended`."""
        with suppress(Stopped):
            batch = self._channel.get()
            if batch is not None:
                try:
                    if not self.ahead:
                        self._crop(batch)
                    return batch
                except Exception as error:
                    self.error = error
        self.ended = True
        return Batch()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._channel.stop()
        self._thread.join()
        atexit.unregister(self.stop)

    def _read(self) -> None:
        """The thread."""
        try:
            for frames in self._batches():
                batch = Batch(frames)
                if self.ahead:
                    self._crop(batch)
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
            num_bytes = sum(each.image.nbytes for each in frames)
            if len(frames) == self._batch_size or num_bytes >= _BATCH_BYTES:
                yield frames
                frames = []
        if frames:
            yield frames

    def _crop(self, batch: Batch) -> None:
        """Tell cuts, ask the region where to look, and crop."""
        with timed(self.busy, "crop"):
            for number, frame in enumerate(batch.frames):
                chunk, before = frame.index // CHUNK, None
                if self._chunk is not None and chunk != self._chunk:
                    before = {
                        "region": self.region.state(),
                        "cuts": self._is_cut.state() if self._is_cut else None,
                    }
                self._chunk = chunk
                batch.before.append(before)
                if self._is_cut:
                    frame = replace(frame, is_cut=self._is_cut(frame.image))
                    batch.frames[number] = frame
                targets = self.region.targets(frame)
                batch.targets.append(targets)
                batch.crops += [self._finder.crop(frame.image, each.box) for each in targets]


def follow(
    feeds: list[Feed], finder: Finder, batch_size: int
) -> Iterator[tuple[Feed, list[Found]]]:
    """Take the frames of `feeds`, which were started, through the model, until all have ended.

    Yields the next frames of a feed with what was found in them, in order; none with the last, when
    it has `ended` and is off the list. Others may be added meanwhile. Feeds share the model's runs:
    what they have ready goes in together, until `batch_size` crops are.
    """
    while feeds:
        with feeds[0].changed:
            feeds[0].changed.wait_for(lambda: any(feed.ready for feed in feeds))
        # Decoded and, where the region does not wait for the frame before, cropped: `Feed._read`.
        taken: list[tuple[Feed, Batch]] = []
        for feed in feeds:
            if feed.ready and sum(len(batch.crops) for _, batch in taken) < batch_size:
                taken.append((feed, feed.take()))
        feeds[:] = [feed for feed in (*feeds[1:], feeds[0]) if not feed.ended]  # turns

        crops = [crop for _, batch in taken for crop in batch.crops]
        boxes = [each.box for _, batch in taken for targets in batch.targets for each in targets]
        start = time.perf_counter()
        detections = iter(finder.locate(np.stack(crops), boxes) if crops else ())
        seconds = time.perf_counter() - start

        for feed, batch in taken:
            feed.busy["run"] += seconds * len(batch.crops) / max(len(crops), 1)
            region, smoother, results = feed.region, feed.smoother, []
            for frame, targets, before in zip(
                batch.frames, batch.targets, batch.before, strict=True
            ):
                found: Sequence[Detection] = [
                    replace(next(detections), track=target.track) for target in targets
                ]
                if region.closed:
                    found = region.update(frame, found)
                if before is not None:
                    before |= {"smoother": smoother.state() if smoother else None}
                if smoother:
                    found = smoother(frame, found)
                results.append(Found(frame, found, before))
            yield feed, results


@contextmanager
def timed(busy: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that the block takes to `busy[stage]`."""
    start = time.perf_counter()
    yield
    busy[stage] += time.perf_counter() - start
