"""Sources -> the machines of a Ray cluster -> what one machine would have written."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmk.runtime.cluster import Share, here, joined_ray, machines, share_out
from lmk.runtime.detect.on_ray_part import Done, Model, Part, Worker, remove_unfinished
from lmk.runtime.detect.tasks import (
    Spec,
    Wanted,
    journal_place,
    label,
    made_of,
    open_journal,
)
from lmk.runtime.errors import UserError
from lmk.runtime.model import (
    Contract,
    contract_of,
    model_file,
    pack_file,
    read_header,
    read_info,
    read_model,
)
from lmk.runtime.outputs import Sink, join_parquet, make_sinks
from lmk.runtime.owner import Owned
from lmk.runtime.pipeline import CHUNK, Journal, Outcome, Summary, total
from lmk.runtime.sources import ImageSource, open_source
from lmk.runtime.terminal import Report


def detect_on_ray(
    pairs: Sequence[tuple[Spec, Path]],
    model: Model,
    wanted: Wanted,
    report: Report | None = None,
    part_images: int = CHUNK,
) -> Iterator[Outcome]:
    """Detect in sources, each with the folder of its results, on the machines of a Ray cluster.

    Yields how it went with each as it ends; the files are those of `detect_all` on one machine.
    A source is done in one go by one worker, but a folder of images whose rows do not depend on
    each other, and of which only Parquet is wanted, in parts of `part_images`. What a worker that
    dies had begun is done again by another. All machines must share the folders. Raises UserError
    as `joined_ray`, when the model cannot be loaded by a worker, and for sources that only this
    machine has.
    """
    for spec, _ in pairs:
        if str(spec) == "-" or str(spec).startswith("stdin:"):
            raise UserError(
                f"{spec}: got standard input, expected what all machines can read; leave --on out"
            )
    contract = contract_of_model(model)  # composed once, here, and not by every worker
    jobs: list[_Planned] = []
    early = []
    # Else it warns of every actor that Ray Data makes, and has made to be restarted.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        for spec, folder in pairs:
            try:
                jobs.append(_plan(spec, folder, model, contract, wanted, part_images))
            except UserError as error:
                early.append(Outcome(label(spec), None, error))
        yield from early
        yield from (job.end() for job in jobs if not job.parts)
        if any(job.parts for job in jobs):
            with joined_ray("--on ray", "leave --on out") as ray:
                yield from _run(ray, jobs, model, wanted, report or (lambda done, of: None))
    finally:
        for job in jobs:
            for part in job.parts:
                _clear(part)
            if job.split:
                job.split.owned.close()


@dataclass
class _Planned:
    """One source: the parts that are to be done, and what has become of them."""

    name: str
    parts: list[Part]
    split: _Split | None = None
    started: float = field(default_factory=time.perf_counter)
    done: dict[int, Done] = field(default_factory=dict)  # by the part's number

    def end(self) -> Outcome:
        """Join the parts; to be called when all are done."""
        # In their order, not in that of their ends: what is said does not depend on who was first.
        parts = [done for _, done in sorted(self.done.items())]
        for done in parts:
            if done.error is not None:
                return Outcome(self.name, None, UserError(done.error))
        summaries = [done.summary for done in parts if done.summary is not None]
        if self.split is None:
            return Outcome(self.name, summaries[0])
        summary = total(summaries, time.perf_counter() - self.started)
        try:
            self.split.join(summary)
        except UserError as error:
            return Outcome(self.name, None, error)
        return Outcome(self.name, summary)


@dataclass
class _Split:
    """The images of one source, in parts: a file each, kept until all are there."""

    source: ImageSource
    journal: Journal
    sinks: list[Sink]
    target: Path
    files: list[Path]
    owned: Owned

    def join(self, summary: Summary) -> None:
        """The files of all parts -> the file of the source. Raises UserError."""
        if len(summary.skipped) == self.source.num_frames:
            self.journal.remove()  # another try would find the same
            raise UserError(
                f"{self.source.path}: got {self.source.num_frames} images none of which can be "
                f"read (the first: {summary.skipped[0]}); give whole image files"
            )
        join_parquet(self.files, self.target)
        for sink in self.sinks[1:]:  # it removes what earlier results had besides
            sink.close()
        self.journal.finish()


def _plan(
    spec: Spec,
    folder: Path,
    model: Model,
    contract: Contract,
    wanted: Wanted,
    part_images: int,
) -> _Planned:
    source = _splittable(spec, wanted)
    if source is None or len(source.paths) <= part_images:
        part = Part(spec, str(folder))
        _clear(part)
        return _Planned(label(spec), [part])
    again, owned = wanted.force or wanted.resume, Owned(folder)
    try:
        sinks, [target] = make_sinks(source, folder, (), wanted.formats, again)
        place, made = journal_place(folder, again), made_of(source, wanted, contract)
        by = {"device": model.device, "images of a part": part_images}
        journal = open_journal(place, folder, made, by, wanted)
    except BaseException:
        owned.close()
        raise
    journal.commit(-1, None, [])  # from here it can be resumed
    paths, work, root = [str(path) for path in source.paths], str(journal.work), str(source.path)
    parts = [
        Part(spec, work, root, tuple(paths[first : first + part_images]), first)
        for first in range(0, len(paths), part_images)
    ]
    split = _Split(source, journal, list(sinks), target, [part.file for part in parts], owned)
    todo = [part for part in parts if not part.file.exists()]
    for part in todo:
        _clear(part)
    return _Planned(label(spec), todo, split)


def _splittable(spec: Spec, wanted: Wanted) -> ImageSource | None:
    """The images that `spec` stands for, if what is found in each depends on no other."""
    where = wanted.where
    alone = (
        where.roi not in ("track", "box")
        and where.start is None
        and where.detector is None
        and wanted.smooth is None
    )
    if not alone or wanted.formats != ("parquet",) or not isinstance(spec, str):
        return None
    if not (Path(spec).is_dir() or glob.has_magic(spec)) or Path(spec).is_file() or "://" in spec:
        return None  # a video, which may be damaged: opened where it is read
    source = open_source(spec)
    return source if isinstance(source, ImageSource) else None


def _clear(part: Part) -> None:
    """Forget the tries of a run that was killed, and what it was writing."""
    part.trace.unlink(missing_ok=True)
    remove_unfinished(part)


def contract_of_model(model: Model) -> Contract:
    """What a worker will find loaded, which is made if it is not there. Raises UserError."""
    if model.engine is not None:
        header = read_header(pack_file(model.path))
        return contract_of(header, read_info(Path(model.engine)).contract.precision, {})
    path = model_file(model.path)
    if path.suffix == ".engine":
        return read_info(path).contract
    return read_model(path)[1]


def _run(
    ray: Any, jobs: Sequence[_Planned], model: Model, wanted: Wanted, report: Report
) -> Iterator[Outcome]:
    """Do the parts of all jobs; the outcomes as the jobs end."""
    parts = [(job, part) for job in jobs for part in job.parts]
    share = _share(machines(ray), len(parts), model)
    with _quiet(ray):
        rows = _results(ray, [part for _, part in parts], share, model, wanted)
        for num_done, (number, done) in enumerate(rows, 1):
            if done.refusal is not None:
                raise UserError(done.refusal)
            job = parts[number][0]
            job.done[number] = done
            report(num_done, len(parts))
            if len(job.done) == len(job.parts):
                yield job.end()


def _share(nodes: Sequence[dict[str, float]], num_parts: int, model: Model) -> Share:
    """What each worker gets: a GPU if the model needs one, else CPUs."""
    if model.threads is not None and model.threads < 1:
        raise UserError(f"threads: got {model.threads}, expected 1 or more")
    suffixes = {Path(file).suffix for file in (model.path, model.engine) if file}
    use_gpus = model.device == "cuda" or ".engine" in suffixes
    if use_gpus and not any(node.get("GPU") for node in nodes):
        raise UserError(
            "--device: got cuda, expected a GPU in the Ray cluster, which has none; start Ray "
            "where there is one, or use the cpu device"
        )
    return share_out(nodes, num_parts, threads=model.threads, use_gpus=use_gpus)


def _results(
    ray: Any, parts: Sequence[Part], share: Share, model: Model, wanted: Wanted
) -> Iterator[tuple[int, Done]]:
    """What has become of each part by its number, as they end."""
    threads = model.threads or (None if share.gpus else share.cpus)
    loaded = Model(model.path, model.device, threads, model.engine)
    items = [{"number": number, "part": part.to_json()} for number, part in enumerate(parts)]
    # One part at a time: another may take an hour, and a second worker be free.
    pool = ray.data.ActorPoolStrategy(size=share.jobs, max_tasks_in_flight_per_actor=1)
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker,
        fn_constructor_args=(loaded, wanted, here()),
        batch_size=1,
        compute=pool,
        num_cpus=share.cpus,
        num_gpus=share.gpus or None,
    )
    for row in dataset.iter_rows():
        yield int(row["number"]), Done.from_json(row["done"])


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Without Ray Data's own words and bars; its settings are the process's."""
    import ray.data  # noqa: F811

    settings, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = settings.enable_progress_bars, settings.print_on_execution_start, log.level
    settings.enable_progress_bars = settings.print_on_execution_start = False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        settings.enable_progress_bars, settings.print_on_execution_start = before[:2]
        log.setLevel(before[2])
