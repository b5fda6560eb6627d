"""A part of what `--on ray` has to do -> its results, on whatever machine of the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmk.runtime.cluster import Place, at
from lmk.runtime.detect.tasks import Spec, Wanted, opener
from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.outputs import ParquetSink
from lmk.runtime.owner import beside
from lmk.runtime.pipeline import Summary, Task, detect_task
from lmk.runtime.regions import RegionMaker
from lmk.runtime.sources import ImageSource, Source
from lmk.runtime.terminal import explain

TRIES = 3  # of a part whose process dies: then the part is what kills it


@dataclass(frozen=True)
class Model:
    """What a worker loads: the arguments of `load`."""

    path: str
    device: str | None = None
    threads: int | None = None
    engine: str | None = None


@dataclass(frozen=True)
class Part:
    """A source, or some images of one, whose rows are then a Parquet file of their own."""

    spec: Spec
    folder: str  # of the source's results; of some images: of their file
    root: str = ""  # that names of images are relative to
    images: tuple[str, ...] = ()
    first: int = 0  # the first image's number in the source

    @property
    def file(self) -> Path:
        """What the rows of some images are written to."""
        return Path(self.folder) / f"{self.first:09d}.parquet"

    @property
    def trace(self) -> Path:
        """A file that has a byte for each try, gone when the part is done."""
        place = self.file if self.images else Path(self.folder)
        return beside(place, "tries")

    def to_json(self) -> str:
        """For the way to a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Part:
        """What `to_json` made."""
        values = json.loads(text)
        spec = values["spec"] if isinstance(values["spec"], str) else tuple(values["spec"])
        return cls(**values | {"spec": spec, "images": tuple(values["images"])})


@dataclass(frozen=True)
class Done:
    """What a worker reports of a part: a summary or an error, or why it can do none at all."""

    summary: Summary | None = None
    error: str | None = None
    refusal: str | None = None

    def to_json(self) -> str:
        """For the way back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Done:
        """What `to_json` made."""
        values = json.loads(text)
        summary = values.pop("summary")
        return cls(Summary(**summary) if summary else None, **values)


class Worker:
    """Does parts in a process of its own, into which the model is loaded once.

    wanted: for every source. place: where the paths of parts and model are meant.
    """

    def __init__(self, model: Model, wanted: Wanted, place: Place) -> None:
        self._wanted, self._place = wanted, place
        self._refusal: str | None = None
        self._loaded: tuple[Landmarker, RegionMaker] | None = None
        try:
            with at(place):
                landmarker = load(model.path, model.device, model.threads, model.engine)
                self._loaded = landmarker, RegionMaker(wanted.where, landmarker)
        except UserError as error:  # raised here it would be tried again and again
            self._refusal = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A row of Ray Data with a number and a `Part` -> the number and what is `Done`."""
        part = Part.from_json(str(batch["part"][0]))
        return {"number": batch["number"], "done": [self.do(part).to_json()]}

    def do(self, part: Part) -> Done:
        """Do `part`; an error of it is returned."""
        if self._loaded is None:
            return Done(refusal=self._refusal)
        try:
            with at(self._place):
                tries = _count_try(part)
                if tries > TRIES:
                    return Done(error=f"its process died {TRIES} times, of this source it seems")
                return Done(self._detect(*self._loaded, part, again=tries > 1))
        except Exception as error:
            return Done(error=explain(error)[0] or f"internal error: {error!r}")

    def _detect(
        self, landmarker: Landmarker, regions: RegionMaker, part: Part, again: bool
    ) -> Summary:
        # What the process that died has left is of this very run: go on with it.
        wanted = replace(self._wanted, resume=True) if again else self._wanted
        if part.images:
            sink = ParquetSink(part.file, landmarker.names)
            source: Source = SomeImages(part)
            task = Task(source, regions(source), [sink])
        else:
            task = opener(part.spec, Path(part.folder), landmarker, wanted, regions)()
        with task.source as source:
            return detect_task(task, landmarker, wanted.batch, live=source.is_live)


class SomeImages(ImageSource):
    """Some images of a source, with the names and numbers that they have in it.

    It is no error if none of them can be read: others may be.
    """

    def __init__(self, part: Part) -> None:
        super().__init__([Path(image) for image in part.images], Path(part.root))
        self._number = part.first

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in super().__iter__():
                yield replace(frame, index=self._number + frame.index)
        except UserError as error:
            if not self._skipped:  # of one image alone
                self._skipped.append(str(error))


def _count_try(part: Part) -> int:
    """How often `part` was begun, now included; what dead processes were writing is removed."""
    part.trace.parent.mkdir(parents=True, exist_ok=True)
    with part.trace.open("ab") as file:
        file.write(b".")
        tries = file.tell()
    if tries > 1:
        remove_unfinished(part)
    return tries


def remove_unfinished(part: Part) -> None:
    """Remove what a process that was killed left under temporary names (see `atomic_path`)."""
    if part.images:
        unfinished = part.file.parent.glob(f".{part.file.stem}.*.parquet")
    else:
        unfinished = Path(part.folder).glob(".landmarks.*.*")
    for path in unfinished:
        if path.is_file():
            path.unlink(missing_ok=True)
