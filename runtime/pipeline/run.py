"""Sources -> landmarks -> sinks: decoding, the model and writing at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.outputs import Sink
from lmk.runtime.pipeline.feed import Feed, run_ready
from lmk.runtime.pipeline.journal import Journal
from lmk.runtime.pipeline.summary import Interrupted, Outcome, Summary, total
from lmk.runtime.pipeline.writer import Writer
from lmk.runtime.regions import Region
from lmk.runtime.sources import Source

if TYPE_CHECKING:
    from lmk.runtime.pipeline.smooth import Smoother


@dataclass
class Task:
    """One source, where its objects are, and what is to be written about them."""

    source: Source
    region: Region
    sinks: Sequence[Sink] = ()
    smoother: Smoother | None = None  # steadies the points of each track; None: as found
    journal: Journal | None = None  # makes the run one that can be resumed
    files: Sequence[Path] = ()  # that the sinks will have written


def detect(
    source: Source,
    finder: Finder,
    region: Region,
    sinks: Sequence[Sink],
    batch_size: int = 4,
    progress: Callable[[int], None] | None = None,
    live: bool = False,
) -> Summary:
    """Find the landmarks in every frame of `source` and give them to every sink, in order.

    As `detect_all` with one source, whose error is raised.
    """
    return detect_task(Task(source, region, sinks), finder, batch_size, progress, live)


def detect_task(
    task: Task,
    finder: Finder,
    batch_size: int = 4,
    progress: Callable[[int], None] | None = None,
    live: bool = False,
) -> Summary:
    """`detect` with all that a task can hold."""
    run = _Run(finder, batch_size, progress, live)
    [outcome] = run([(task.source.path.name, lambda: task)], 1)
    if outcome.summary is None:
        assert outcome.error is not None
        raise outcome.error
    return outcome.summary


def detect_all(
    tasks: Iterable[tuple[str, Callable[[], Task]]],
    finder: Finder,
    batch_size: int = 4,
    streams: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Outcome]:
    """`detect` for many sources; yields how it went with each, as it ends.

    tasks: a name, and what opens the source when its turn comes. streams: sources that are read at
    the same time; their frames share the model's batches. An error of one source, its region or its
    sinks ends that one: its sinks are aborted and the others go on. An error of the model is raised
    after the sinks of all were aborted. Ctrl-C writes what the model has done, closes the sinks
    (aborts those that would replace earlier results: see Sink.replaces) and raises Interrupted.
    progress: called from the caller's thread with the number of frames the model has done.
    """
    return _Run(finder, batch_size, progress, live=False)(tasks, streams)


@dataclass
class _Active:
    """One source on its way."""

    name: str
    task: Task
    feed: Feed
    writer: Writer
    started: float = field(default_factory=time.perf_counter)

    @property
    def error(self) -> Exception | None:
        return self.feed.error or self.writer.error

    def finish(self, partial: bool) -> None:
        """Let the writer end what the model has done; may be called again after Ctrl-C."""
        self.feed.stop()
        self.writer.end(self.feed.error is not None, partial)
        self.writer.join()
        self._close()

    def abort(self) -> None:
        self.feed.stop()
        self.writer.abort()
        self._close()

    def _close(self) -> None:
        """Close the source; leave no empty folder and no journal of nothing behind."""
        self.task.source.close()
        journal = self.task.journal
        if journal and journal.last_index < 0 and not any(f.exists() for f in self.task.files):
            journal.remove()
        for folder in {file.parent for file in self.task.files}:
            with suppress(OSError):  # it holds something, or is gone
                folder.rmdir()

    def summary(self) -> Summary:
        seconds, writer = time.perf_counter() - self.started, self.writer
        journal = self.task.journal
        skipped = [*(journal.skipped if journal else []), *self.task.source.skipped]
        return Summary(
            frames=writer.num_frames,
            seconds=seconds,
            frames_per_second=(writer.num_frames - writer.num_replayed) / seconds,
            skipped=list(dict.fromkeys(skipped)),
            mean_score=writer.score_sum / max(writer.num_scores, 1),
            busy_seconds=dict(self.feed.busy),
            objects=writer.num_objects,
            resumed=writer.num_replayed,
            dropped=self.feed.dropped,
        )


class _Run:
    """The state of one `detect_all`; the model runs in the caller's thread."""

    def __init__(
        self,
        finder: Finder,
        batch_size: int,
        progress: Callable[[int], None] | None,
        live: bool,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected 1 or more")
        self._finder, self._batch_size, self._live = finder, batch_size, live
        self._progress = progress or (lambda frames: None)
        self._changed = threading.Condition()
        self._active: list[_Active] = []
        self._ending: list[_Active] = []  # read to the end, still being written
        self._num_done = 0
        self._started = time.perf_counter()

    def __call__(
        self, tasks: Iterable[tuple[str, Callable[[], Task]]], streams: int
    ) -> Iterator[Outcome]:
        waiting = iter(tasks)
        more = True
        try:
            while more or self._active or self._ending:
                while more and len(self._active) < streams:
                    opened = next(waiting, None)
                    more = opened is not None
                    if opened is not None:
                        yield from self._open(*opened)
                if self._active:
                    self._step()
                yield from self._ended(wait=not self._active or len(self._ending) > streams)
        except KeyboardInterrupt:
            raise self._interrupted() from None
        except BaseException:
            for each in (*self._active, *self._ending):
                each.abort()
            raise

    def _open(self, name: str, open_task: Callable[[], Task]) -> Iterator[Outcome]:
        try:
            task = open_task()
        except Exception as error:
            yield Outcome(name, None, error)
            return
        feed = Feed(
            task.source,
            task.region,
            self._finder,
            self._batch_size,
            task.smoother,
            self._live,
            self._changed,
        )
        writer = Writer(task.source, task.sinks, task.journal, feed.busy)
        active = _Active(name, task, feed, writer)
        self._active.append(active)
        try:
            if task.journal and task.journal.last_index >= 0:
                task.source.resume_after(task.journal.last_index)
                feed.restore(task.journal.state)
        except UserError as error:
            feed.error = error
        else:
            writer.start()
            feed.start()
            return
        self._active.remove(active)
        yield Outcome(name, None, feed.error)

    def _step(self) -> None:
        """Run the model once, and hand what it found to the writers."""
        with self._changed:
            self._changed.wait_for(lambda: any(each.feed.ready for each in self._active))
        owners = {id(each.feed): each for each in self._active}
        for feed, found in run_ready(
            [each.feed for each in self._active], self._finder, self._batch_size
        ):
            each = owners[id(feed)]
            if found and not each.writer.put(found):
                feed.stop()  # the writer has failed: nothing more is wanted
                feed.ended = True
            self._num_done += len(found)
            if feed.ended:
                self._active.remove(each)
                self._ending.append(each)
                each.writer.end(failed=feed.error is not None)
        self._active = self._active[1:] + self._active[:1]  # turns
        self._progress(self._num_done)

    def _ended(self, wait: bool) -> Iterator[Outcome]:
        for each in list(self._ending):
            if wait or each.writer.done:
                each.finish(partial=False)
                self._ending.remove(each)
                error = each.error
                yield Outcome(each.name, None if error else each.summary(), error)

    def _interrupted(self) -> BaseException:
        """Ctrl-C: end everything in order; a second one aborts."""
        every = (*self._active, *self._ending)
        try:
            for each in every:
                each.finish(partial=each in self._active)
        except BaseException:
            for each in every:
                each.abort()
            raise
        for each in every:
            if each.error is not None:
                return each.error
        untouched = any(each.writer.untouched for each in every)
        resumable = any(each.task.journal and each.task.journal.last_index >= 0 for each in every)
        summary = total([each.summary() for each in every], time.perf_counter() - self._started)
        return Interrupted(summary, untouched, resumable)
