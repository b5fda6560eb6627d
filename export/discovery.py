"""Films -> landmarks in one go: found, adapted to, judged, exported, drawn; each part only once."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lmk.export.graph import export_pack
from lmk.runtime.detect.report import print_summary
from lmk.runtime.detect.tasks import Wanted, is_finished, opener
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output, printable, read_text, write_bytes
from lmk.runtime.find import find_in_film
from lmk.runtime.landmarker import load
from lmk.runtime.model import read_model, workspace
from lmk.runtime.owner import Owned, beside, check_same, listing
from lmk.runtime.pipeline import detect_task
from lmk.runtime.regions import RegionMaker, Where
from lmk.runtime.terminal import console, progress
from lmk.train import adapting
from lmk.train.config import AUTO, AdaptConfig, EvaluateConfig
from lmk.train.datasets import FilmOptions
from lmk.train.judge import write_report
from lmk.train.loop import training_set
from lmk.train.network import load_pack

_NO_BUDGET = {"minutes": 0.0, "steps": 0.0}  # of a run that did not come to its end
_PARTS = ("finding", "adaptation", "report", "export", "detection")
_LAST_PARTS_S = 40.0  # that report and export take; detection takes about as long as finding
_LEAST_SHARE = 0.5  # of the budget is for adaptation, however long the rest takes
_JUDGED = EvaluateConfig(images=100)


@dataclass(frozen=True)
class Search:
    """How objects are found, and of how many frames is learnt.

    find: as of `find_in_film`, or `given`: FILM-boxes.csv is there, beside the output.
    """

    find: str = "auto"
    start: str | None = None
    objects: int | None = None
    frames: int = FilmOptions.frames


@dataclass(frozen=True)
class Discovered:
    """What `discover` has written."""

    pack: Path
    onnx: Path
    pictures: tuple[Path, ...]  # to look at: what was found, the page that judges, overlays


def discover(
    films: Sequence[Path], config: AdaptConfig, search: Search, force: bool = False
) -> Discovered:
    """Learn landmarks of what moves in `films`.

    Everything is written beside the pack, `config.output`: FILM-boxes.csv and FILM-found.png of
    each film, a page that judges the landmarks, the ONNX file, and what that finds in
    FILM-landmarks. `config.minutes` are for all of it. With `config.resume` what is finished is
    left alone and what was begun is gone on with. Raises UserError, as for a film in which it is
    not sure what moves, and KeyboardInterrupt, with everything saved.
    """
    with Owned(beside(config.output, "found.json")):  # adaptation has the pack to itself
        return _discover(films, config, search, force)


def _discover(
    films: Sequence[Path], config: AdaptConfig, search: Search, force: bool
) -> Discovered:
    pack, folder = config.output, config.output.parent
    if len({film.stem for film in films}) < len(films):
        raise UserError("discover: got films of one name, expected different ones; rename some")
    seconds, learnt = _made_before(pack, films, search) if config.resume else ({}, _NO_BUDGET)
    asked = {"minutes": config.minutes or 0.0, "steps": config.steps or 0}
    boxes = [folder / f"{film.stem}-boxes.csv" for film in films]
    if not config.resume:
        for path in (pack, *(boxes if search.find != "given" else ())):
            check_output(path, force)
    for film, path in zip(films, boxes, strict=True):
        if search.find == "given":
            if not path.is_file():
                raise UserError(
                    f"{path}: got no such file, expected the boxes of {film.name}, as `lmk find` "
                    "leaves them; put it there, or leave --find given out"
                )
            _say("finding", f"{path} is taken as it is")
        elif film.stem not in seconds:
            seconds[film.stem] = _find(film, folder, search)
            _keep(pack, films, search, seconds, learnt)
        else:
            _say("finding", f"{film.name} before")

    started = time.monotonic()
    wanted = FilmOptions(max(1, search.frames // len(films)), folder)
    data = training_set(tuple(map(str, films)), "video", "image", config, wanted)
    if config.minutes:
        cut = time.monotonic() - started
        rest = (2 * sum(seconds.values()) + cut + _LAST_PARTS_S) / 60
        share = max(config.minutes - rest, _LEAST_SHARE * config.minutes)
        config = replace(config, minutes=share)
    is_longer = any(asked[name] > learnt[name] for name in asked)
    is_new = is_longer or not (config.resume and adapting.is_finished(pack))
    if is_new:
        goes_on = config.resume and adapting.is_under_way(pack)
        _say("adaptation", f"{len(data.names)} crops of {data.name}")
        _keep(pack, films, search, seconds, learnt)
        adapting.adapt(replace(config, resume=goes_on, report=False), data)
        _keep(pack, films, search, seconds, asked)
    else:
        _say("adaptation", f"{pack} before")

    core = workspace.core_of(pack) if config.core == AUTO else config.core
    model, header = load_pack(pack, core)
    page, onnx = pack.with_suffix(".html"), pack.with_suffix(".onnx")
    if is_new or _is_older(page, pack):
        judged = write_report(page, model, header, data, _JUDGED, num_views=2)
        _say("report", judged.summary)
    else:
        _say("report", f"{page} before")
    if is_new or not onnx.exists() or read_model(onnx)[1].pack_sha256 != header["sha256"]:
        crops = data.central_crops(16, model.config.input_size)
        contract = export_pack(pack, core, onnx, crops, force=True)
        _say("export", f"eager = ONNX Runtime within {contract.drift['max_px']:.1e} px")
    else:
        _say("export", f"{onnx} before")
    overlays = []
    for film in films:
        results = folder / f"{film.stem}-landmarks"
        overlays.append(_detect(film, results, onnx, config.threads, _is_older(results, pack)))
    found = [folder / f"{film.stem}-found.png" for film in films]
    shown = [path for path in found if path.is_file()]  # boxes that were given may have none
    return Discovered(pack, onnx, (*shown, page, *overlays))


def _say(part: str, words: str) -> None:
    console().print(f"{_PARTS.index(part) + 1}/{len(_PARTS)} {part}: {words}")


def _find(film: Path, folder: Path, search: Search) -> float:
    """Write boxes and a picture; how many seconds that took."""
    boxes, picture = folder / f"{film.stem}-boxes.csv", folder / f"{film.stem}-found.png"
    started = time.monotonic()
    with Owned(boxes), progress(f"following in {printable(film.stem)}") as report:

        def tell(words: str) -> None:
            _say("finding", f"{words}; see {picture}")

        asked = search.find, search.start, search.objects
        boxed = find_in_film(film, boxes, picture, *asked, tell, report)
    for line in boxed.lines:
        console().print(line)
    return time.monotonic() - started


def _made_of(films: Sequence[Path], search: Search) -> dict[str, object]:
    asked = {f"--{name}": value for name, value in asdict(search).items()}
    return {"films": listing(film.resolve() for film in films), **asked}


def _keep(
    pack: Path,
    films: Sequence[Path],
    search: Search,
    seconds: dict[str, float],
    budget: Mapping[str, float],
) -> None:
    kept = {"made_of": _made_of(films, search), "seconds": seconds, "budget": budget}
    write_bytes(beside(pack, "found.json"), json.dumps(kept).encode())


def _made_before(
    pack: Path, films: Sequence[Path], search: Search
) -> tuple[dict[str, float], Mapping[str, float]]:
    """Seconds that finding took, by film, of those whose boxes are there; a whole run's budget.

    Raises UserError that names what differs from the run before.
    """
    record = beside(pack, "found.json")
    if not record.exists():
        return {}, _NO_BUDGET
    try:
        kept = json.loads(read_text(record, "what was found before"))
        learnt = {name: float(kept.get("budget", _NO_BUDGET)[name]) for name in _NO_BUDGET}
        was, seconds = dict(kept["made_of"]), {str(k): float(v) for k, v in kept["seconds"].items()}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{record}: damaged ({error}); start anew with --force") from None
    check_same(pack, was, json.loads(json.dumps(_made_of(films, search))))
    there = {k: v for k, v in seconds.items() if (pack.parent / f"{k}-boxes.csv").exists()}
    return there, learnt


def _is_older(made: Path, pack: Path) -> bool:
    """Whether a file, or all in a folder, is not there or of the pack before this one."""
    files = made.rglob("*") if made.is_dir() else [made]
    times = [file.stat().st_mtime_ns for file in files if file.is_file()]
    return max(times, default=0) < pack.stat().st_mtime_ns


def _detect(film: Path, results: Path, onnx: Path, threads: int | None, is_new: bool) -> Path:
    """Write what the model finds in a film, unless it is there; the overlay."""
    where = Where(str(results.parent / f"{film.stem}-boxes.csv"))
    with load(onnx, threads=threads, side_by_side=True) as landmarker:
        wanted = Wanted(where, force=is_new, resume=not is_new)
        if not is_new and is_finished(str(film), results, wanted, landmarker.contract):
            _say("detection", f"{results} before")
            return results / "overlay.mp4"
        regions = RegionMaker(where, landmarker)
        task = opener(str(film), results, landmarker, wanted, regions)()
        before = max(0, task.journal.last_index + 1) if task.journal else 0
        with (
            task.source as source,
            progress(f"detecting in {film.stem}", source.num_frames, before) as report,
        ):
            summary = detect_task(
                task, landmarker, wanted.batch, lambda done: report(before + done, None)
            )
    _say("detection", str(results))
    print_summary(summary)
    return results / "overlay.mp4"
