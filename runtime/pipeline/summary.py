"""How it went: what one pass over a source did, or over several, and how Ctrl-C ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STAGES = ("decode", "crop", "run", "write")


@dataclass(frozen=True)
class Summary:
    """What one pass over a source did, or over several."""

    frames: int  # written; those that an interrupted run had done are among them
    seconds: float
    frames_per_second: float  # of those that this run did
    skipped: list[str]  # see Source.skipped
    mean_score: float  # over all landmarks of all frames; 0 without any
    busy_seconds: dict[str, float]  # per stage of STAGES, wall clock, waiting for others left out
    objects: int = 0  # found in all frames together
    found: int = 0  # frames in which there is one
    resumed: int = 0  # frames that an interrupted run had done
    dropped: int = 0  # frames that came while a live run was busy

    @property
    def found_little(self) -> bool:
        """Whether there is nothing in most frames."""
        return 2 * self.found < self.frames

    @property
    def bottleneck(self) -> str:
        """The stage that set the rate."""
        stages = {
            "decode + crop": self.busy_seconds["decode"] + self.busy_seconds["crop"],
            "run": self.busy_seconds["run"],
            "write": self.busy_seconds["write"],
        }
        return max(stages, key=lambda stage: stages[stage])


@dataclass(frozen=True)
class Outcome:
    """How it went with one of several sources: a summary, or the error that ended it."""

    name: str
    summary: Summary | None
    error: Exception | None = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; what was found before it is in the sinks' files, unless earlier ones are there.

    `str` of it is one line for the user. untouched: earlier results were kept in its place.
    resumable: a journal knows how to go on.
    """

    def __init__(self, summary: Summary, untouched: bool = False, resumable: bool = False) -> None:
        frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
        kept = "the earlier results are untouched" if untouched else "what was found is kept"
        more = "; --resume goes on" if resumable else ""
        super().__init__(f"interrupted after {frames}; {kept}{more}")
        self.summary = summary


def total(summaries: Sequence[Summary], seconds: float) -> Summary:
    """One summary of several, that took so many seconds together."""
    frames, objects = sum(each.frames for each in summaries), sum(e.objects for e in summaries)
    resumed = sum(each.resumed for each in summaries)
    return Summary(
        frames=frames,
        seconds=seconds,
        frames_per_second=(frames - resumed) / seconds,
        skipped=[line for each in summaries for line in each.skipped],
        mean_score=sum(e.mean_score * e.objects for e in summaries) / max(objects, 1),
        busy_seconds={s: sum(each.busy_seconds[s] for each in summaries) for s in STAGES},
        objects=objects,
        found=sum(each.found for each in summaries),
        resumed=resumed,
        dropped=sum(each.dropped for each in summaries),
    )
