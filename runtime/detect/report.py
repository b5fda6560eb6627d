"""How a detection went -> what the user reads."""

from __future__ import annotations

from lmk.runtime.detection import LOW_SCORE
from lmk.runtime.pipeline import Outcome, Summary
from lmk.runtime.terminal import console


def print_outcome(outcome: Outcome) -> None:
    """A line about one of several sources."""
    screen = console()
    if outcome.summary is None:
        screen.print(f"{outcome.name}: failed: {outcome.error}")
        return
    screen.print(f"{outcome.name}: {_rate(outcome.summary)}")
    if outcome.summary.found_little:
        screen.print(_found_little(outcome.summary))
    for reason in outcome.summary.skipped:
        screen.print(f"skipped: {reason}")


def print_summary(summary: Summary) -> None:
    """What a detection did: frames, rate, where the time went, what was left out."""
    screen = console()
    screen.print(_rate(summary))
    busy = ", ".join(f"{name} {value:.1f} s" for name, value in summary.busy_seconds.items())
    screen.print(f"busy: {busy}; the slowest: {summary.bottleneck}")
    if summary.dropped:
        screen.print(f"dropped: {summary.dropped} frames that came while the model was busy")
    if summary.found_little:
        screen.print(_found_little(summary))
    if summary.objects and summary.mean_score < LOW_SCORE:
        screen.print(
            "low scores: the object does not fill its box (say where it is by --roi), or the "
            "landmarks are not steady (learn for longer; the pack's page tells)"
        )
    for reason in summary.skipped:
        screen.print(f"skipped: {reason}")


def _found_little(summary: Summary) -> str:
    share = 1 - summary.found / summary.frames
    return (
        f"nothing found in {share:.0%} of {summary.frames} frames: say where it is by --roi "
        "(motion, or boxes of `lmk find`), --start or a --detector"
    )


def _rate(summary: Summary) -> str:
    frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
    resumed = f" ({summary.resumed} of them before)" if summary.resumed else ""
    objects = "" if summary.objects == summary.frames else f"{summary.objects} objects, "
    score = f"mean score {summary.mean_score:.2f}" if summary.objects else ""
    return (
        f"{frames}{resumed} in {summary.seconds:.1f} s, {summary.frames_per_second:.1f} a second; "
        f"{objects}{score}".rstrip("; ,")
    )
