"""What the user asked of `lmk detect` -> a task for each source."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmk import __version__
from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError, as_text, without_passwords
from lmk.runtime.files import check_output, printable, write_bytes
from lmk.runtime.images import IMAGE_SUFFIXES, num_pages
from lmk.runtime.landmarker import Landmarker
from lmk.runtime.model import Contract, workspace
from lmk.runtime.outputs import Sink, Style, make_sinks, output_files
from lmk.runtime.owner import RECORD, Owned, check_same, journal_of, listing
from lmk.runtime.pipeline import Journal, Smoother, Task, read_record
from lmk.runtime.regions import Finding, RegionMaker, Where
from lmk.runtime.sources import ImageSource, Source, find_medium, open_source


@dataclass(frozen=True)
class Wanted:
    """Everything that decides what is written about a source."""

    where: Where = field(default_factory=Where)
    formats: tuple[str, ...] = ("csv", "overlay")
    style: Style = field(default_factory=Style)
    smooth: tuple[float, float] | None = None  # min_cutoff, beta of `Smoother`; None: as found
    batch: int = 4
    hwaccel: str | None = None
    force: bool = False  # replace earlier results
    resume: bool = False  # go on with an interrupted run, leave finished sources alone


Spec = str | tuple[str, ...]  # what `open_source` takes, or image files that are one source


def grouped(specs: Sequence[str]) -> list[Spec]:
    """The sources of a command line: several image files on it are one, in their place.

    Files of several pictures are films and stay by themselves.
    """
    images = tuple(
        spec
        for spec in specs
        if Path(spec).suffix.lower() in IMAGE_SUFFIXES
        and _is_file(spec)
        and num_pages(Path(spec)) == 1
    )
    if len(images) < 2:
        return list(specs)
    rest: list[Spec] = [spec for spec in specs if spec not in images]
    return [*rest[: specs.index(images[0])], images, *rest[specs.index(images[0]) :]]


def folders_of(specs: Sequence[Spec], output: Path | None) -> list[Path]:
    """Where the results of each source go: `output`, or a folder in it each if there are several.

    Without `output`, runs/NAME-landmarks. Equal names get a number.
    """
    if output and len(specs) == 1:
        return [output]
    folders: list[Path] = []
    for spec in specs:
        name = name_of(spec)
        base = output / name if output else workspace.RUNS / f"{name}-landmarks"
        folder, number = base, 2
        while folder in folders:
            folder, number = base.with_name(f"{base.name}-{number}"), number + 1
        folders.append(folder)
    return folders


def name_of(spec: Spec) -> str:
    """What the folder of a source's results is named after."""
    path = _common(spec) if isinstance(spec, tuple) else Path(spec)
    if path.exists():
        return printable(path.resolve().stem if path.is_file() else path.resolve().name) or "images"
    try:
        return find_medium(str(spec)).name
    except UserError:  # told when its turn comes
        return Path(without_passwords(str(spec), whole=True)).stem


def label(spec: Spec) -> str:
    """What a source is called in messages: never with the password of an address."""
    if isinstance(spec, tuple):
        return f"{len(spec)} images"
    return name_of(spec) if "://" in spec else as_text(spec)


def check_folders(folders: Sequence[Path], wanted: Wanted) -> None:
    """Raise UserError when a folder has results, and nothing says what is to become of them."""
    for folder in () if wanted.force or wanted.resume else folders:
        for path in (path for either in output_files(folder, wanted.formats) for path in either):
            if path.exists():  # else its folder would be made, for a source that may fail
                check_output(path, force=False)


def _common(paths: tuple[str, ...]) -> Path:
    return Path(os.path.commonpath([Path(path).resolve().parent for path in paths]))


def _is_file(spec: str) -> bool:
    return Path(spec).is_file()


def is_finished(spec: Source | Spec, folder: Path, wanted: Wanted, contract: Contract) -> bool:
    """Whether an earlier run has written all that is wanted there, to the end.

    Raises UserError, which names the difference, when its results are of something else: another
    model, source or option, or files that have changed since.
    """
    files = output_files(folder, wanted.formats)
    if journal_of(folder).exists():
        return False
    if not all(any(path.exists() for path in either) for either in files):
        return False
    was = read_record(folder)  # first: a stream need not be opened
    if was.get("read") == "once":
        raise UserError(
            f"{folder}: got results of what can be read but once, expected those of files; write "
            "elsewhere by --output, or start anew with --force"
        )
    check_same(folder, was, made_of(spec, wanted, contract))
    return True


def opener(
    spec: Spec, folder: Path, landmarker: Landmarker, wanted: Wanted, regions: RegionMaker
) -> Callable[[], Task]:
    """What opens the source `spec` and everything its results in `folder` need, when called."""

    def open_task() -> Task:
        source = _opened(spec, wanted)
        try:
            return make_task(source, folder, landmarker, wanted, regions)
        except BaseException:
            source.close()
            raise

    return open_task


def _opened(spec: Spec, wanted: Wanted) -> Source:
    if isinstance(spec, tuple):
        return ImageSource([Path(path).resolve() for path in spec], _common(spec))
    return open_source(spec, wanted.hwaccel)


def make_task(
    source: Source, folder: Path, landmarker: Landmarker, wanted: Wanted, regions: RegionMaker
) -> Task:
    """The task of one open source, which owns `folder` until it is closed.

    Raises UserError when another run has the folder, and when results or an interrupted run are
    there already and neither `force` nor `resume` says what is to become of them.
    """
    region = regions(source)
    smoother = Smoother(*wanted.smooth) if wanted.smooth else None
    force = wanted.force or wanted.resume
    contract = landmarker.contract
    owned = Owned(folder)
    try:
        resumable = not source.is_live and source.path.exists()
        place = journal_place(folder, force) if resumable else None
        sinks, files = make_sinks(  # tells what is in the way, before a journal is replaced
            source,
            folder,
            landmarker.names,
            wanted.formats,
            force,
            Journal.work_of(place) if place else None,
            wanted.style,
            contract.category,
        )
        journal = None
        if place:
            runner = {"runner": landmarker.runner.name}
            journal = open_journal(place, folder, made_of(source, wanted, contract), runner, wanted)
        else:
            made = {"read": "once", **made_of(source, wanted, contract), "source": source.name}
            record = _Record(folder / RECORD, made)
            record.replaces = any(sink.replaces for sink in sinks)
            sinks.insert(0, record)  # killed after it, --resume is refused
    except BaseException:
        owned.close()
        raise
    return Task(source, region, sinks, smoother, journal, files, owned)


class _Record(Sink):
    """Says beside the results of what can be read but once, as a stream, what they are made of."""

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        self._path, self._made = path, made

    def open(self, source: Source) -> None:
        """Nothing yet."""

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Nothing yet."""

    def close(self) -> None:
        """The results are there."""
        write_bytes(self._path, json.dumps(self._made, indent=1).encode())

    def abort(self) -> None:
        """So are none."""


def open_journal(
    place: Path, folder: Path, made: dict[str, Any], by: dict[str, Any], wanted: Wanted
) -> Journal:
    """The journal in `place` of results in `folder`, `made` of that and `by` that."""
    by = {**by, "lmk": __version__, "--batch": wanted.batch, "--write": ",".join(wanted.formats)}
    return Journal(place, made, wanted.resume, by, folder / RECORD)


def journal_place(folder: Path, force: bool) -> Path:
    """Where the journal of the results in `folder` is; raises UserError if one is, unless force."""
    place = journal_of(folder)
    if (place / "journal.json").exists() and not force:
        raise UserError(
            f"{folder}: got the traces of an interrupted run, expected a new place; "
            "--resume goes on with it, --force starts anew"
        )
    return place


def made_of(spec: Source | Spec, wanted: Wanted, contract: Contract) -> dict[str, Any]:
    """What finished results depend on: with another value of any of it they would be others.

    JSON values: the files of the source and those that options name, with sizes and times, the
    model and the options. spec: a source, or what opens one; a video is not opened for it.
    """
    if isinstance(spec, str) and not Path(spec).is_file():
        spec = _opened(spec, wanted)
    if isinstance(spec, tuple):
        root, paths = _common(spec), [Path(path).resolve() for path in spec]
    elif isinstance(spec, str):
        root, paths = Path(spec), [Path(spec)]
    else:
        root, paths = spec.path, spec.paths if isinstance(spec, ImageSource) else [spec.path]
    options = asdict(wanted)
    for name in ("force", "resume", "batch", "formats"):
        del options[name]
    finding = Finding.from_json(contract.finding)
    where = wanted.where.resolved(finding)
    if where.roi == "motion" and finding and finding.way == "motion":
        options["margin"] = finding.margin
    options |= asdict(where) | options.pop("style")
    del options["where"]
    for name, value in options.items():
        named = isinstance(value, str | Path) and Path(value).is_file()
        options[name] = listing([Path(value)]) if named else str(value)
    return {
        "source": str(root.resolve()),
        "its files": listing(paths, root if root.is_dir() else root.parent),
        "model": [contract.pack_sha256, contract.core_sha256, contract.precision],
        "its crops": contract.crop_scale,
        **{f"--{name.replace('_', '-')}": value for name, value in options.items()},
    }
