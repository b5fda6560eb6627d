"""What the user says of the objects' places -> a region for each source."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.regions.detector import BoxDetector, DetectorRegion
from lmk.runtime.regions.finding import Finding
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.regions.moving import MARGIN, MovingObjects
from lmk.runtime.regions.patch import PatchRegion
from lmk.runtime.regions.region import Region
from lmk.runtime.regions.survey import survey_film
from lmk.runtime.regions.track import Tracker
from lmk.runtime.sources import Source

_STARTED = ("track", "box")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Where the objects are, in the user's words."""

    roi: str = "auto"  # what `parse_roi` takes, or track, motion, box, or auto: see `resolved`
    start: str | None = None  # with track and box: what `parse_roi` takes, for the first frame
    objects: int | None = None  # at most so many; None: 1 with track, else all that there are
    detector: Path | None = None  # ONNX, see `BoxDetector`
    detector_class: str | None = None  # names or numbers, with commas
    detector_score: float = 0.25

    def resolved(self, finding: Finding | None) -> Where:
        """With what auto stands for in films, for a pack that was learnt from crops found so.

        Motion is looked for again, objects that were given or followed by a box are found by their
        landmarks, what filled its frames is expected to fill them. Raises UserError for a pack that
        was learnt from the boxes of a detector, when there is none.
        """
        if self.roi != "auto":
            return self
        way = finding.way if finding and self.detector is None else "full"
        if self.start:
            return replace(self, roi="track")
        if way == "detector":
            assert finding is not None
            raise UserError(
                f"roi: got none for a pack that was learnt from boxes of the detector "
                f"'{finding.detector}', expected that; give it by --detector, or say where the "
                "object is by --roi"
            )
        roi = {"box": "track"}.get(way, way)
        if finding is not None and roi in ("track", "motion") and self.objects is None:
            return replace(self, roi=roi, objects=finding.objects)
        return replace(self, roi=roi)


class RegionMaker:
    """Makes a region for each source; what they share, such as a detector, is loaded once.

    A detector runs by ONNX Runtime where the finder was asked to run and in as many threads: on the
    GPU for "cuda", else on the CPU, also beside an engine that was not asked for by its device.
    Raises UserError, at once, for words that mean nothing or do not go together.
    """

    def __init__(self, where: Where, finder: Finder) -> None:
        finding = Finding.from_json(finder.contract.finding)
        self._images_are_whole = where.roi == "auto" and where.start is None
        self._where, self._finder = where.resolved(finding), finder
        self._margin = finding.margin if finding and finding.way == "motion" else MARGIN
        _check(self._where)
        own = self._where.roi in ("track", "motion", "box")
        self._boxes = None if own else parse_roi(self._where.roi)
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

    def __call__(self, source: Source) -> Region:
        """A region that has seen no frame of `source` yet; images are whole with auto.

        Raises UserError, with the cure, where motion cannot be told, or is not sure with auto.
        """
        if self._images_are_whole and source.frame_rate is None and self._detector is None:
            if self._where.roi != "full":
                _logger.warning(
                    "%s: pictures are looked at as wholes, but the model was learnt from objects "
                    "found in films; say where they are by --roi",
                    source.path,
                )
            return parse_roi("full")
        if self._where.roi == "motion":
            return self._moving(source)
        if self._where.roi == "box":
            assert self._start is not None
            return PatchRegion(self._start)
        if self._boxes is None:
            most = self._where.objects or 1
            return Tracker(self._finder, self._start, self._detector, most)
        if self._detector is not None:
            return DetectorRegion(self._detector)
        return self._boxes

    def _moving(self, source: Source) -> MovingObjects:
        if source.is_live or source.frame_rate is None or not source.path.is_file():
            what = "a live source" if source.is_live else "no film in a file"
            raise UserError(
                f"{source.path}: got {what}, expected a film: what moves is told from frames all "
                "over it; give --roi track, or record it first"
            )
        found = survey_film(source.path, self._where.objects)
        if self._images_are_whole:
            found.check()
        return found.region(self._margin)


def _check(where: Where) -> None:
    starts = where.roi in _STARTED
    if where.start and not starts:
        raise UserError(f"start: got {where.start}, expected it with --roi track or box only")
    if where.roi == "box" and not where.start:
        raise UserError("roi: got box without its place in the first frame; give it by --start")
    if where.detector and where.roi not in ("track", "full"):
        raise UserError(f"roi: got {where.roi} and a detector, expected track or full beside it")
    if where.detector_class and not where.detector:
        raise UserError(f"detector class: got {where.detector_class} without a --detector")
    if where.objects and not (where.roi in ("track", "motion") or where.detector):
        raise UserError(
            f"objects: got {where.objects}, expected it with --roi track or motion, or a "
            "--detector, only"
        )
