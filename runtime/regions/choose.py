"""What the user says of the objects' places -> a region for each source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.regions.detector import BoxDetector, DetectorRegion
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.regions.region import Region
from lmk.runtime.regions.track import Tracker


@dataclass(frozen=True)
class Where:
    """Where the objects are, in the user's words."""

    roi: str = "full"  # what `parse_roi` takes, or "track"
    start: str | None = None  # with "track": what `parse_roi` takes, for the first frame
    objects: int | None = None  # at most so many; None: 1 with "track", all that a detector finds
    detector: Path | None = None  # ONNX, see `BoxDetector`
    detector_class: str | None = None  # names or numbers, with commas
    detector_score: float = 0.25


class RegionMaker:
    """Makes a region for each source; what they share, such as a detector, is loaded once.

    A detector runs by ONNX Runtime where the finder was asked to run and in as many threads: on the
    GPU for "cuda", else on the CPU, also beside an engine that was not asked for by its device.
    Raises UserError, at once, for words that mean nothing or do not go together.
    """

    def __init__(self, where: Where, finder: Finder) -> None:
        _check(where)
        self._where, self._finder = where, finder
        self._boxes = parse_roi(where.roi) if where.roi != "track" else None
        self._start = parse_roi(where.start) if where.start else None
        self._detector = None
        if where.detector:
            self._detector = BoxDetector(
                where.detector,
                [name.strip() for name in (where.detector_class or "").split(",") if name.strip()],
                where.detector_score,
                max_objects=where.objects,
                device="cuda" if finder.device == "cuda" else "cpu",  # OpenVINO is on the CPU too
                threads=finder.threads,
            )

    def __call__(self) -> Region:
        """A region that has seen no frame yet."""
        if self._boxes is None:
            most = self._where.objects or 1
            return Tracker(self._finder, self._start, self._detector, most)
        if self._detector is not None:
            return DetectorRegion(self._detector)
        return self._boxes


def _check(where: Where) -> None:
    tracks = where.roi == "track"
    if where.start and not tracks:
        raise UserError(f"start: got {where.start}, expected it with --roi track only")
    if where.detector and not tracks and where.roi != "full":
        raise UserError(f"roi: got {where.roi} and a detector, expected track or full beside it")
    if where.detector_class and not where.detector:
        raise UserError(f"detector class: got {where.detector_class} without a --detector")
    if where.objects and not (tracks or where.detector):
        raise UserError(
            f"objects: got {where.objects}, expected it with --roi track or a --detector only"
        )
