"""Landmarks of the last frame -> where to look in the next one, object by object, and again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.images import Box, square_around
from lmk.runtime.regions.detector import BoxDetector
from lmk.runtime.regions.motion import Motion, fit_box, relative
from lmk.runtime.regions.region import Region, Target, overlap
from lmk.runtime.regions.search import (
    Pyramid,
    acceptance_of,
    fine_grid,
    grid,
    look_again,
    nearest_first,
    search,
    search_frame,
)

FRAME_S = 1 / 25  # from image to image, which carry no time
_WEAK = 0.5  # of a track's usual score; below it the object is not seen
_DOUBTFUL = 0.8  # of that; below it the object is looked at in several views, now and then,
_DOUBT_EVERY = 5  # frames,
_STEADY = 1.5  # and is one up to so many times the error at which it would be found
_LEAST_SCORE = 0.2  # below it nothing is, whatever is usual
_PATIENCE = 5  # frames that a track goes on without being seen
_USUAL_GAIN = 0.02  # weight of the newest frame in what is usual
_SAME_PLACE = 0.5  # tracks that overlap by so much follow one object
_MEMORY_S = 1.0  # one of several objects found again after longer has a new number
_SIDES_PX = 8.0  # a smaller object is none
_SEARCH_CROPS = 10  # of the frame in a search, while something is wanted: the rate is to hold
_SEARCH_FINE = 6  # of them of a size that is known, if those that cover the frame are too large
_SEARCH_EVERY = 4  # frames, when something was lost long ago or never seen
_ZOOMS = (1.0, 1.6)  # of the last box
_AT_ONCE = 5  # frames in which what was lost is searched where it was,
_SOON = 25  # and those in which it is searched there in one and elsewhere in the next


@dataclass
class Track:
    """One object that is followed, or was."""

    number: int
    motion: Motion
    reference: NDArray[np.float64] | None = None  # its landmarks in its first box; None: no frame
    usual: float = 0.0  # mean score of the frames in which it is seen
    unseen: int = 0  # frames since it was
    is_steady: bool | None = None  # in several views of its first frame; None: no frame yet
    step_s: float = FRAME_S  # since the frame before

    def learn(self, detection: Detection, weights: Sequence[float] = ()) -> None:
        """Take in what was found in its box; weights of the landmarks, all alike unless given."""
        score = float(detection.scores.mean())
        if self.reference is None:
            self.reference = relative(detection.points, detection.box)
            self.usual = score
        if score < max(_WEAK * self.usual, _LEAST_SCORE):
            self.unseen += 1
            return
        self.unseen = 0
        self.usual += _USUAL_GAIN * (score - self.usual)
        trusted = detection.scores * np.sqrt(weights or 1.0).astype(np.float32)
        found = fit_box(self.reference, detection.points, trusted)
        if found is not None:
            box, fit = found
            self.motion.correct(box, self.step_s, fit * min(1.0, score / self.usual))

    def is_lost(self, frame: Frame) -> bool:
        """Whether it is out of sight."""
        height, width = frame.size
        inside = 0 <= self.motion.x <= width and 0 <= self.motion.y <= height
        sized = _SIDES_PX <= self.motion.side <= 4 * max(height, width)
        return self.unseen >= _PATIENCE or not (inside and sized)

    def state(self) -> Any:
        """As JSON values."""
        reference = None if self.reference is None else self.reference.tolist()
        return vars(self) | {"motion": dict(vars(self.motion)), "reference": reference}

    @classmethod
    def restored(cls, state: Any) -> Track:
        """The track whose `state` that is."""
        reference = None if state["reference"] is None else np.array(state["reference"], np.float64)
        return cls(**state | {"motion": Motion(**state["motion"]), "reference": reference})


class Tracker(Region):
    """Follows objects from frame to frame by their landmarks, and finds them again when lost.

    The first boxes come from `start`, else from `detector`, else from a search of the frame by the
    landmarks themselves (search.py), which also finds again what was lost: some crops a frame,
    where it was and, in turns, elsewhere, the nearest first. A box keeps the relation to the
    landmarks that it had in its first frame; turning with the object is left to the model. Boxes
    are square.

    A track that is not seen for five frames ends; until then its landmarks, low in score, are
    given. max_tracks: objects that are searched at most; `start` may give more. Of two tracks on
    one object the worse ends. After a cut all is searched anew. With one object at most it keeps
    its number when found again in the same scene; of several that holds for a second. No number is
    used twice.
    """

    closed = True

    def __init__(
        self,
        finder: Finder,
        start: Region | None = None,
        detector: BoxDetector | None = None,
        max_tracks: int = 1,
    ) -> None:
        if max_tracks < 1:
            raise UserError(f"tracks: got at most {max_tracks}, expected 1 or more")
        self._finder, self._start, self._detector = finder, start, detector
        self._wanted = max_tracks
        self._tracks: list[Track] = []
        self._lost: list[Track] = []  # the latest last
        self._next_number = 0
        self._frames = self._place = 0  # frames seen; turns of the search for the lost
        self._missing = _SOON  # frames since something was lost
        self._time_s = self._clock_s = 0.0  # of the last frame; ours, which never stands still

    def targets(self, frame: Frame) -> Sequence[Target]:
        """See `Region.targets`."""
        step_s = frame.time_s - self._time_s if frame.time_s > self._time_s else FRAME_S
        self._time_s, self._clock_s = frame.time_s, self._clock_s + step_s
        for track in self._tracks:
            track.step_s = step_s
            track.motion.predict(self._clock_s)
        if self._frames == 0 and self._start is not None:
            self._begin([target.box for target in self._start.targets(frame)])
            self._wanted = max(self._wanted, len(self._tracks))
        elif self._frames == 0 or frame.is_cut:
            self._tracks, self._lost = [], []
            self._begin(self._all_in(frame))
        elif len(self._tracks) < self._wanted and (
            self._missing < _SOON or self._frames % _SEARCH_EVERY == 0
        ):
            self._find_more(frame)
        self._frames, self._missing = self._frames + 1, self._missing + 1
        return [Target(track.motion.box, track.number) for track in self._tracks]

    def update(self, frame: Frame, detections: Sequence[Detection]) -> Sequence[Detection]:
        """See `Region.update`."""
        weights = acceptance_of(self._finder).weights
        for track, detection in zip(self._tracks, detections, strict=True):
            track.learn(detection.by_landmarks, weights)
            self._check(track, frame, detection.by_landmarks)
        kept = self._distinct()
        followed = [track for track in kept if not track.is_lost(frame)]
        believed = [
            detection
            for track, detection in zip(self._tracks, detections, strict=True)
            if any(track is other for other in followed)
        ]
        lost = [track for track in kept if track.is_lost(frame)]
        if lost:
            self._place = self._missing = 0
        self._lost = (self._lost + lost)[-self._wanted :]
        self._tracks = followed
        return believed

    def state(self) -> Any:
        """See `Region.state`."""
        return {
            "tracks": [track.state() for track in self._tracks],
            "lost": [track.state() for track in self._lost],
            "wanted": self._wanted,
            "counts": [self._next_number, self._frames, self._place, self._missing],
            "times": [self._time_s, self._clock_s],
        }

    def restore(self, state: Any) -> None:
        """See `Region.restore`."""
        self._tracks = [Track.restored(each) for each in state["tracks"]]
        self._lost = [Track.restored(each) for each in state["lost"]]
        self._wanted = state["wanted"]
        self._next_number, self._frames, self._place, self._missing = state["counts"]
        self._time_s, self._clock_s = state["times"]

    def _check(self, track: Track, frame: Frame, detection: Detection) -> None:
        """Give up a track that has come to follow a texture, which goes with the crop.

        A model so weak that its landmarks were not steady to begin with cannot be judged by that.
        """
        doubtful = detection.scores.mean() < _DOUBTFUL * track.usual
        most = _STEADY * acceptance_of(self._finder).error
        if track.is_steady is None:
            seen = look_again(self._finder, frame.image, detection, most)
            track.is_steady = seen.error <= most
        elif track.is_steady and doubtful and self._frames % _DOUBT_EVERY == 0:
            seen = look_again(self._finder, frame.image, detection, most)
            if seen.error > most:
                track.unseen = _PATIENCE

    def _distinct(self) -> list[Track]:
        """The tracks, each on an object of its own."""
        worse = set()
        for a, b in itertools.combinations(self._tracks, 2):
            if overlap(a.motion.box, b.motion.box) >= _SAME_PLACE:
                worse.add(min(a, b, key=lambda track: (-track.unseen, track.usual)).number)
        return [track for track in self._tracks if track.number not in worse]

    def _all_in(self, frame: Frame) -> list[Box]:
        """Every object in a frame of which nothing is known."""
        if self._detector is not None:
            return [found.box for found in self._detector(frame.image)[: self._wanted]]
        found = search_frame(self._finder, frame.image, self._wanted)
        return [one.detection.box for one in found]

    def _begin(self, boxes: Sequence[Box]) -> None:
        for box in boxes:
            self._tracks.append(Track(self._next_number, Motion.of(box, self._clock_s)))
            self._next_number += 1

    def _find_more(self, frame: Frame) -> None:
        """Look for what was lost, and for more, in a part of the frame."""
        found: list[tuple[Box, Detection | None]]
        if self._detector is not None:
            found = [(one.box, None) for one in self._detector(frame.image)]
        else:
            pyramid, crops = Pyramid(frame.image), self._next_crops(frame)
            # Those that are followed may be found first.
            objects = search(self._finder, pyramid, crops, best=2, wanted=1 + len(self._tracks))
            found = [(one.detection.box, one.detection) for one in objects]
        for box, detection in found:
            free = all(overlap(box, track.motion.box) < _SAME_PLACE for track in self._tracks)
            if free and len(self._tracks) < self._wanted:
                self._resume(box, detection)

    def _next_crops(self, frame: Frame) -> list[Box]:
        """Some of the crops that cover the frame, or, of what was just lost, those about it."""
        last = self._lost[-1].motion.box if self._lost else None
        if last and (self._missing < _AT_ONCE or self._missing < _SOON and self._missing % 2):
            return [square_around(last, zoom) for zoom in _ZOOMS]
        crops = [crop for level in grid(*frame.size) for crop in level]
        crops = nearest_first(crops, last) if last else crops
        # What was never seen is likely to be as large as what is followed.
        alike = last or next((track.motion.box for track in self._tracks), None)
        fine = fine_grid(*frame.size, alike) if alike and alike[2] >= _SIDES_PX else []
        turn, self._place = self._place, self._place + 1
        fine_count = _SEARCH_FINE if fine else 0
        return [
            each[place % len(each)]
            for each, count in ((fine, fine_count), (crops, _SEARCH_CROPS - fine_count))
            for place in range(turn * count, turn * count + min(count, len(each)))
        ]

    def _resume(self, box: Box, detection: Detection | None) -> None:
        """Follow what is in `box`: a lost object, if it can be that, else a new one."""
        motion = Motion.of(box, self._clock_s)
        same = [track for track in self._lost if self._wanted == 1 or self._may_be(track, motion)]
        if not same:
            self._begin([box])
            return
        before = same[-1]
        self._lost = [other for other in self._lost if other is not before]
        again = Track(before.number, motion)
        if detection is not None and before.reference is not None and before.usual > _LEAST_SCORE:
            # The box is to be about the object as it was, not as the search has it.
            again.reference, again.usual = before.reference, before.usual
            fitted = fit_box(before.reference, detection.points, detection.scores)
            if fitted is not None:
                again.motion = Motion.of(fitted[0], self._clock_s)
        self._tracks.append(again)

    def _may_be(self, track: Track, motion: Motion) -> bool:
        """Whether the object of a lost `track` can have come to where `motion` is."""
        last = track.motion
        away = math.hypot(motion.x - last.x, motion.y - last.y)
        return away <= last.side and self._clock_s - last.time_s <= _MEMORY_S
