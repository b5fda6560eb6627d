"""Detections -> a SLEAP file (.slp) of predicted instances, by sleap-io."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.outputs.sink import FileSink, Spool, write_errors
from lmk.runtime.sources import Source

if TYPE_CHECKING:
    import sleap_io


class SlpSink(FileSink):
    """One labelled frame per frame in which something was found, one predicted instance per object.

    Points as SLEAP's own since 1.1 of the format: frame pixels, the centre of the top-left one
    (0, 0). A point's score is the landmark's, an instance's their mean; tracks are called by their
    numbers. The video is linked by its absolute path, images as a list of files. At the end it
    takes some 6 KB of memory an object and frame, 0.6 GB an hour of one: sleap-io holds them all.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        category: str = "object",
        skeleton: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(path)
        self._names, self._category, self._skeleton = list(names), category, list(skeleton)

    def begin(self, source: Source, path: Path) -> None:
        """Start the spool."""
        self._source, self._temporary = source, path
        self._files: list[str] = []  # of images
        self._shape = (0, 0)
        self._last = -1
        self._spool = Spool(path.parent, len(self._names))

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add one frame."""
        self._last = max(self._last, frame.index)
        self._shape = self._shape if any(self._shape) else frame.size
        row = frame.index
        if self._source.frame_rate is None:
            row = len(self._files)
            self._files.append(frame.source)
        with write_errors(self.path):
            for detection in detections:
                self._spool.add(row, detection)

    def end(self) -> None:
        """Make the labels and save them."""
        import sleap_io

        edges = [list(pair) for pair in self._skeleton]
        skeleton = sleap_io.Skeleton(nodes=self._names, edges=edges, name=self._category)
        video = self._video()
        found = self._spool.read()
        tracks = {
            int(number): sleap_io.Track(str(number)) for number in sorted(set(found["track"]))
        }
        frames = [
            sleap_io.LabeledFrame(
                video=video,
                frame_idx=int(row),
                instances=[_instance(each, skeleton, tracks[int(each["track"])]) for each in group],
            )
            for row, group in groupby(found, key=lambda each: each["row"])
        ]
        labels = sleap_io.Labels(
            frames, videos=[video], skeletons=[skeleton], tracks=list(tracks.values())
        )
        sleap_io.save_slp(labels, str(self._temporary), embed=False, verbose=False)
        self._spool.close()

    def _video(self) -> sleap_io.Video:
        """The link to the video or images, with what SLEAP wants to know; none is opened."""
        import sleap_io

        path = self._source.path.resolve()
        metadata: dict[str, Any] = {"grayscale": False, "bgr": True, "dataset": ""}
        if self._source.frame_rate is not None:
            metadata |= {"type": "MediaVideo", "shape": [self._last + 1, *self._shape, 3]}
            metadata |= {"filename": path.as_posix(), "fps": float(self._source.frame_rate)}
            return sleap_io.Video(path.as_posix(), None, metadata, open_backend=False)
        folder = path if path.is_dir() else path.parent
        files = [(folder / name).as_posix() for name in self._files]
        metadata |= {"type": "ImageVideo", "shape": [len(files), *self._shape, 3]}
        metadata |= {"filename": files[0] if files else "", "filenames": files}
        return sleap_io.Video(files, None, metadata, open_backend=False)

    def drop(self) -> None:
        """Let the spool go."""
        self._spool.close()


def _instance(found: Any, skeleton: sleap_io.Skeleton, track: Any) -> sleap_io.PredictedInstance:
    import sleap_io

    points, scores = found["values"][:, :2], found["values"][:, 2]
    return sleap_io.PredictedInstance.from_numpy(
        points, skeleton=skeleton, point_scores=scores, score=float(scores.mean()), track=track
    )
