"""What was found -> the sinks and the journal of one source, in a thread of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from lmk.runtime.detection import Detection, Found, Frame
from lmk.runtime.outputs import Sink
from lmk.runtime.pipeline.feed import timed
from lmk.runtime.pipeline.journal import Journal
from lmk.runtime.pipeline.threads import Channel, Stopped, Thread
from lmk.runtime.sources import Source


class Writer:
    """Feeds the sinks of one source; they are closed in its thread, where no Ctrl-C breaks in.

    busy: where the seconds of the stage "write" are counted. error: what ended it early. untouched:
    earlier results were kept, since Ctrl-C came before the last frame.
    """

    def __init__(
        self,
        source: Source,
        sinks: Sequence[Sink],
        journal: Journal | None,
        busy: dict[str, float],
    ) -> None:
        self._source, self._sinks, self._journal, self._busy = source, sinks, journal, busy
        self._channel: Channel[list[Found] | None] = Channel()
        self._thread = Thread(self._guarded)
        self._ended = self._partial = self._failed = False
        self._last_index = -1
        self.error: Exception | None = None
        self.untouched = False
        self.num_frames = self.num_replayed = self.num_found = self.num_objects = (
            self.num_scores
        ) = 0
        self.score_sum = 0.0

    def start(self) -> None:
        """Open the sinks, in the thread."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the thread has ended."""
        return self._thread.done

    def put(self, found: list[Found]) -> bool:
        """Hand over the next frames; waits for room. False when the writer has failed."""
        try:
            self._channel.put(found)
        except Stopped:
            return False
        return True

    def end(self, failed: bool = False, partial: bool = False) -> None:
        """No more follows: the sinks are to be closed; aborted if the source has `failed`.

        partial: Ctrl-C came before the last frame. May be called again if Ctrl-C breaks into it.
        """
        if not self._ended:
            self._failed, self._partial = failed, partial
            with suppress(Stopped):  # it has ended by itself
                self._channel.put(None)
            self._ended = True

    def join(self) -> None:
        """Wait until everything is written."""
        self._thread.join()

    def abort(self) -> None:
        """Stop at once; what was written goes, what the journal has stays."""
        self._channel.stop()
        self._thread.join()
        for sink in self._sinks:
            sink.abort()

    def _guarded(self) -> None:
        """The thread."""
        try:
            self._write()
        except Stopped:
            pass  # `abort` follows
        except Exception as error:
            self.error = error
            self._channel.stop()
            for sink in self._sinks:
                sink.abort()

    def _write(self) -> None:
        for sink in self._sinks:
            sink.open(self._source)
        with timed(self._busy, "write"):
            self._replay()
        while (found := self._channel.get()) is not None:
            with timed(self._busy, "write"):
                for each in found:
                    self._write_one(each)
        with timed(self._busy, "write"):
            self._close()

    def _replay(self) -> None:
        for chunk in self._journal.done() if self._journal else ():
            for frame, detections in chunk:
                for sink in self._sinks:
                    sink.replay(frame, detections)
                self._count(frame, detections)
            self.num_replayed += len(chunk)
            for sink in self._sinks:
                sink.checkpoint()

    def _write_one(self, found: Found) -> None:
        if self._journal and found.before is not None:
            for sink in self._sinks:
                sink.checkpoint()
            self._journal.commit(self._last_index, found.before, self._source.skipped)
        for sink in self._sinks:
            sink.write(found.frame, found.detections)
        if self._journal:
            self._journal.add(found.frame, found.detections)
        self._count(found.frame, found.detections)

    def _count(self, frame: Frame, detections: Sequence[Detection]) -> None:
        self._last_index = frame.index
        self.num_frames += 1
        self.num_objects += len(detections)
        self.num_found += bool(detections)
        for each in detections:
            self.score_sum += float(each.scores.sum())
            self.num_scores += each.scores.size

    def _close(self) -> None:
        self.untouched = self._partial and any(sink.replaces for sink in self._sinks)
        for sink in self._sinks:
            if self._failed or (self._partial and sink.replaces):
                sink.abort()
            else:
                sink.close()
        if self._journal and not (self._failed or self._partial):
            self._journal.finish()
