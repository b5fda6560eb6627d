"""`lmk detect`: what was asked -> tasks -> what the user is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lmk.runtime.detect.on_ray import contract_of_model, detect_on_ray
from lmk.runtime.detect.on_ray_part import Model
from lmk.runtime.detect.report import print_outcome, print_summary
from lmk.runtime.detect.tasks import (
    Spec,
    Wanted,
    check_folders,
    folders_of,
    grouped,
    is_finished,
    label,
    name_of,
    opener,
)
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.model import Contract, workspace
from lmk.runtime.outputs import FORMATS, Style, read_skeleton
from lmk.runtime.pipeline import (
    BETA,
    MIN_CUTOFF_HZ,
    Outcome,
    detect_all,
    detect_task,
    total,
)
from lmk.runtime.regions import Finding, RegionMaker, Where
from lmk.runtime.runners import AUTO, device_words, settle
from lmk.runtime.sources import expand
from lmk.runtime.terminal import FILE_PATH, CommaList, console, progress

SOME_FAILED = 3  # exit code: results are there, but not of everything
FOUND_LITTLE = 4  # exit code: all was looked at, and in most frames there was nothing
_HELP = """Find landmarks in images, folders, videos, cameras and streams.

SOURCES: any number of files, folders, patterns ('clips/*.mp4'), camera numbers, rtsp:// and
http(s):// addresses; - is a video piped in.
"""
_EPILOG = "\b\n--write takes, with commas:\n" + "\n".join(
    f"  {name:<9}{', '.join([*form.files, *(form.of_images or ())])}: {form.help}"
    for name, form in FORMATS.items()
)


_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("sources", nargs=-1, required=True),
    click.option(
        "--model", type=FILE_PATH, help="A category or a model file; default: the newest in runs/."
    ),
    click.option(
        "--engine",
        type=FILE_PATH,
        help="An engine built with --refit for another category of the same core.",
    ),
    click.option(
        "--roi",
        default="auto",
        show_default=True,
        help="Where the object is: full, center, x,y,w,h, a CSV; motion: what moves before a still "
        "camera; track: follow it by its landmarks, box: by its looks. auto: in films as in "
        "those that the model was learnt from, else full.",
    ),
    click.option("--start", help="With --roi track or box: its place in the first frame, or CSV."),
    click.option("--objects", type=click.IntRange(min=1), help="At most that many."),
    click.option("--detector", type=FILE_PATH, help="An ONNX box detector (YOLO-style output)."),
    click.option("--detector-class", help="Name or number of the class that is wanted."),
    click.option("--detector-score", type=click.FloatRange(0, 1), default=0.25, show_default=True),
    click.option("--smooth", is_flag=True, help="Steady the points of each object (One-Euro)."),
    click.option(
        "--smooth-by",
        type=(float, float),
        metavar="HZ BETA",
        help="The filter's least cut-off and its gain by speed; implies --smooth.",
    ),
    click.option(
        "--write",
        "formats",
        type=CommaList(name="text"),
        default="csv,overlay",
        show_default=True,
        help=f"Any of {', '.join(FORMATS)}.",
    ),
    click.option("--overlay/--no-overlay", default=True, help="Draw the landmarks too."),
    click.option("--trails", type=click.IntRange(min=0), default=0, help="Frames of each trail."),
    click.option("--names", is_flag=True, help="Write the landmarks' names into the overlay."),
    click.option("--skeleton", type=FILE_PATH, help="CSV or JSON of name pairs, drawn as lines."),
    click.option(
        "--output", type=FILE_PATH, help="Folder of results; default: runs/NAME-landmarks."
    ),
    click.option(
        "--device",
        type=click.Choice((AUTO, *device_words())),
        default=AUTO,
        show_default=True,
        help="Where and by what it runs; auto: the quickest here that finds the same.",
    ),
    click.option(
        "--threads", type=int, help="CPU threads of the model and the detector; default: all cores."
    ),
    click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True),
    click.option(
        "--streams",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Sources read at the same time, sharing the model's batches.",
    ),
    click.option("--hwaccel", help="Decode on hardware: cuda, vaapi, …, or auto."),
    click.option(
        "--live/--no-live",
        default=None,
        help="Drop frames that come too fast; default: for cameras and streams.",
    ),
    click.option(
        "--on",
        "cluster",
        type=click.Choice(["ray"]),
        help="Spread the sources over Ray; with --write parquet also the images of each folder.",
    ),
    click.option("--resume", is_flag=True, help="Go on with an interrupted run."),
    click.option("--force", is_flag=True, help="Overwrite earlier results."),
]


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("detect", help=_HELP, epilog=_EPILOG)
@_with_options
def detect_command(sources: tuple[str, ...], **options: Any) -> int:
    """Parse, detect, print; exit code 3 if something had to be left out, 4 if little was found."""
    wanted = _wanted(options)
    if options["engine"] and options["model"] is None:
        raise UserError(
            f"{options['engine']}: got no category to find with it; name one by --model"
        )
    specs = grouped(expand(sources))
    folders = folders_of(specs, options["output"])
    model = workspace.pick(options["model"], "onnx")
    pairs = list(zip(specs, folders, strict=True))
    _check_live(specs, options)
    if options["cluster"]:
        return _detect_on_ray(pairs, model, wanted, options)
    side_by_side = wanted.batch > 1 and wanted.where.roi != "track" and not options["live"]
    with load(
        model, options["device"], options["threads"], options["engine"], side_by_side
    ) as landmarker:
        _tell_where(wanted, landmarker.contract)
        todo = _unfinished(pairs, wanted, landmarker.contract)
        if len(specs) > 1:
            return _detect_many(todo, landmarker, wanted, options["streams"])
        return _detect_one(*todo[0], landmarker, wanted, options["live"]) if todo else 0


def _unfinished(
    pairs: Sequence[tuple[Spec, Path]], wanted: Wanted, contract: Contract
) -> Sequence[tuple[Spec, Path]]:
    """Those that --resume has something to do for; says how many others there are."""
    if not wanted.resume:
        return pairs
    todo = [each for each in pairs if not is_finished(*each, wanted, contract)]
    if len(todo) < len(pairs):
        click.echo(f"finished already: {len(pairs) - len(todo)} of {len(pairs)}", err=True)
    return todo


def _tell_where(wanted: Wanted, contract: Contract) -> None:
    """Say what auto stands for with this model, if it is not the whole frame."""
    where = wanted.where.resolved(Finding.from_json(contract.finding))
    if wanted.where.roi == "auto" and where.roi != "full":
        console().print(f"roi: {where.roi} in films, as the model was learnt; --roi says otherwise")


def _check_live(specs: Sequence[Spec], options: dict[str, Any]) -> None:
    if options["live"] and (len(specs) > 1 or options["resume"]):
        other = "--resume" if options["resume"] else f"{len(specs)} sources"
        raise UserError(f"--live: got it with {other}, expected one source and no --resume")


def _wanted(options: dict[str, Any]) -> Wanted:
    formats = options["formats"]
    if not options["overlay"]:
        formats = tuple(name for name in formats if name != "overlay")
    if not formats:
        raise UserError("--write: got nothing to write; name a format, such as csv")
    skeleton = read_skeleton(options["skeleton"]) if options["skeleton"] else ()
    where = Where(
        options["roi"],
        options["start"],
        options["objects"],
        options["detector"],
        options["detector_class"],
        options["detector_score"],
    )
    return Wanted(
        where=where,
        formats=formats,
        style=Style(options["trails"], options["names"], skeleton),
        smooth=options["smooth_by"] or ((MIN_CUTOFF_HZ, BETA) if options["smooth"] else None),
        batch=options["batch"],
        hwaccel=options["hwaccel"],
        force=options["force"],
        resume=options["resume"],
    )


def _detect_one(
    spec: Spec, folder: Path, landmarker: Landmarker, wanted: Wanted, live: bool | None
) -> int:
    task = opener(spec, folder, landmarker, wanted, RegionMaker(wanted.where, landmarker))()
    with task.source as source:
        live = source.is_live if live is None else live
        if live and source.frame_rate is None:
            raise UserError(f"--live: got images ({source.path}), expected a video; leave it out")
        done_before = max(0, task.journal.last_index + 1) if task.journal else 0
        with progress(f"detecting in {name_of(spec)}", source.num_frames, done_before) as report:
            summary = detect_task(
                task, landmarker, wanted.batch, lambda done: report(done_before + done, None), live
            )
    print_summary(summary)
    for file in task.files:
        click.echo(file)
    if summary.skipped:
        return SOME_FAILED
    return FOUND_LITTLE if summary.found_little and not live else 0


def _detect_many(
    todo: Sequence[tuple[Spec, Path]], landmarker: Landmarker, wanted: Wanted, streams: int
) -> int:
    check_folders([folder for _, folder in todo], wanted)
    regions = RegionMaker(wanted.where, landmarker)
    tasks = (
        (label(spec), opener(spec, folder, landmarker, wanted, regions)) for spec, folder in todo
    )
    outcomes = []
    started = time.perf_counter()
    with progress(f"detecting in {len(todo)} sources", len(todo)) as report:
        for outcome in detect_all(tasks, landmarker, wanted.batch, streams):
            outcomes.append(outcome)
            print_outcome(outcome)
            report(len(outcomes), None)
    return _tell(todo, outcomes, time.perf_counter() - started)


def _detect_on_ray(
    pairs: Sequence[tuple[Spec, Path]], model: Path, wanted: Wanted, options: dict[str, Any]
) -> int:
    if options["live"]:
        raise UserError("--live: got it with --on ray, expected one of them; leave the other out")
    engine = str(options["engine"]) if options["engine"] else None
    device = options["device"]
    if engine is None:  # here: all parts are to be of one make
        model, device = settle(model, device, options["threads"])
    loaded = Model(str(model), device, options["threads"], engine)
    contract = contract_of_model(loaded)
    _tell_where(wanted, contract)
    todo = _unfinished(pairs, wanted, contract) if wanted.resume else pairs
    outcomes = []
    started = time.perf_counter()
    try:
        with progress("detecting on ray, parts") as report:
            for outcome in detect_on_ray(todo, loaded, wanted, report):
                outcomes.append(outcome)
                print_outcome(outcome)
    except KeyboardInterrupt:
        kept = "interrupted; what was finished is kept; --resume goes on"
        raise KeyboardInterrupt(kept) from None
    return _tell(todo, outcomes, time.perf_counter() - started)


def _tell(todo: Sequence[tuple[Spec, Path]], outcomes: Sequence[Outcome], seconds: float) -> int:
    """The end of what happened to several sources, and the exit code."""
    summaries = [each.summary for each in outcomes if each.summary]
    print_summary(total(summaries, seconds))
    failed = len(outcomes) - len(summaries)
    if failed:
        click.echo(f"failed: {failed} of {len(outcomes)} sources, see above", err=True)
    folders = [folder if len(todo) == 1 else folder.parent for _, folder in todo]
    for folder in dict.fromkeys(folders):
        click.echo(folder)
    if failed or any(each.skipped for each in summaries):
        return SOME_FAILED
    return FOUND_LITTLE if any(each.found_little for each in summaries) else 0
