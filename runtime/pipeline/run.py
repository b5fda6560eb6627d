"""Sources -> landmarks -> sinks: decoding, the model and writing at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lmk.runtime.finder import Finder
from lmk.runtime.outputs import Sink
from lmk.runtime.owner import Owned
from lmk.runtime.pipeline.feed import Feed, follow
from lmk.runtime.pipeline.journal import Journal
from lmk.runtime.pipeline.smooth import Smoother
from lmk.runtime.pipeline.summary import Interrupted, Outcome, Summary, total
from lmk.runtime.pipeline.writer import Writer
from lmk.runtime.regions import Region
from lmk.runtime.sources import Source


@dataclass
class Task:
    """One source, where its objects are, and what is to be written about them."""

    source: Source
    region: Region
    sinks: Sequence[Sink] = ()
    smoother: Smoother | None = None  # steadies the points of each track; None: as found
    journal: Journal | None = None  # makes the run one that can be resumed
    files: Sequence[Path] = ()  # that the sinks will have written
    owned: Owned | None = None  # the place of them, given back at the end

    def close(self) -> None:
        """Close the source; leave no empty folder and no journal of nothing behind."""
        self.source.close()
        if self.journal and self.journal.last_index < 0 and not any(f.exists() for f in self.files):
            self.journal.remove()
        for folder in {file.parent for file in self.files}:
            with suppress(OSError):  # it holds something, or is gone
                folder.rmdir()
        if self.owned:
            self.owned.close()


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
    tasks = [(task.source.path.name, lambda: task)]
    [outcome] = detect_all(tasks, finder, batch_size, 1, progress, live)
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
    live: bool = False,
) -> Iterator[Outcome]:
    """`detect` for many sources; yields how it went with each, as it ends.

    tasks: a name, and what opens the source when its turn comes. streams: sources that are read at
    the same time; their frames share the model's batches. An error of one source, its region or its
    sinks ends that one: its sinks are aborted and the others go on. An error of the model is raised
    after the sinks of all were aborted. Ctrl-C writes what the model has done, closes the sinks
    (aborts those that would replace earlier results: see Sink.replaces) and raises Interrupted.
    progress: called from the caller's thread with the number of frames the model has done. live: as
    of `Feed`, of every source.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected 1 or more")
    waiting, changed, started = iter(tasks), threading.Condition(), time.perf_counter()
    feeds: list[Feed] = []
    active: dict[Feed, _Active] = {}
    ending: list[_Active] = []  # read to the end, still being written
    num_done = 0

    def open_more() -> Iterator[Outcome]:
        while len(feeds) < streams and (opened := next(waiting, None)) is not None:
            name, open_task = opened
            try:
                task = open_task()
            except Exception as error:
                yield Outcome(name, None, error)
                continue
            feed = Feed(task.source, task.region, finder, batch_size, task.smoother, live, changed)
            each = _Active(name, task, feed)
            active[feed] = each
            try:
                each.start()
            except Exception as error:
                del active[feed]
                each.abort()
                yield Outcome(name, None, error)
            else:
                feeds.append(feed)

    def ended(wait: bool) -> Iterator[Outcome]:
        for each in list(ending):
            if wait or each.writer.done:
                each.finish(partial=False)
                ending.remove(each)
                yield Outcome(each.name, None if each.error else each.summary(), each.error)

    try:
        yield from open_more()
        for feed, found in follow(feeds, finder, batch_size):
            each = active[feed]
            if found and not each.writer.put(found):
                feed.stop()  # the writer has failed: nothing more is wanted
            num_done += len(found)
            if progress:
                progress(num_done)
            if feed.ended:
                ending.append(active.pop(feed))
                each.writer.end(failed=feed.error is not None)
            yield from ended(wait=len(ending) > streams)
            yield from open_more()
        yield from ended(wait=True)
    except KeyboardInterrupt:
        seconds = time.perf_counter() - started
        raise _interrupted(list(active.values()), ending, seconds) from None
    except BaseException:
        for each in (*active.values(), *ending):
            each.abort()
        raise


@dataclass
class _Active:
    """One source on its way."""

    name: str
    task: Task
    feed: Feed
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        task = self.task
        self.writer = Writer(task.source, task.sinks, task.journal, self.feed.busy)

    def start(self) -> None:
        """Go on where an interrupted run was, or begin."""
        journal = self.task.journal
        resumed = journal is not None and journal.last_index >= 0
        if journal and resumed:
            self.task.source.resume_after(journal.last_index)
        self.feed.start(journal.state if journal and resumed else None)
        self.writer.start()

    @property
    def error(self) -> Exception | None:
        return self.feed.error or self.writer.error

    def finish(self, partial: bool) -> None:
        """Let the writer end what the model has done; may be called again after Ctrl-C."""
        self.feed.stop()
        self.writer.end(self.feed.error is not None, partial)
        self.writer.join()
        self.task.close()

    def abort(self) -> None:
        self.feed.stop()
        self.writer.abort()
        self.task.close()

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
            found=writer.num_found,
            resumed=writer.num_replayed,
            dropped=self.feed.dropped,
        )


def _interrupted(
    active: Sequence[_Active], ending: Sequence[_Active], seconds: float
) -> BaseException:
    """Ctrl-C: end everything in order; a second one aborts."""
    every = (*active, *ending)
    try:
        for each in every:
            each.finish(partial=each in active)
    except BaseException:
        for each in every:
            each.abort()
        raise
    for each in every:
        if each.error is not None:
            return each.error
    untouched = any(each.writer.untouched for each in every)
    resumable = any(each.task.journal and each.task.journal.last_index >= 0 for each in every)
    return Interrupted(total([each.summary() for each in every], seconds), untouched, resumable)
