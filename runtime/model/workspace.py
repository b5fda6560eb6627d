"""Where results go and where inputs that were not named come from: `runs/` of this folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import PRECISIONS, Contract
from lmk.runtime.model.weights import read_header
from lmk.runtime.terminal import console

_WEIGHTS = "*.safetensors"
RUNS = Path("runs")
ZOO = Path(__file__).parents[2] / "zoo"  # what ships with the package
_MADE_BY = {"core": "lmk train-core", "pack": "lmk adapt", "onnx": "lmk export"}
_logger = logging.getLogger(__name__)


def newest(kind: str) -> Path:
    """The newest core, pack or onnx file in `runs/`; else, of cores, the one of people that ships.

    Of onnx files one in fp32, if there is any: not every other one runs on a CPU.
    A safetensors file that cannot be read is skipped with a warning. Raises UserError that says
    which command makes one, and which categories ship.
    """
    pattern = "*.onnx" if kind == "onnx" else _WEIGHTS
    files = (path for path in RUNS.glob(pattern) if path.is_file())
    paths = sorted(files, key=lambda path: -path.stat().st_mtime)
    if kind == "onnx" and paths:  # whether it can be read is found when it is loaded
        typed = tuple(f"-{precision}" for precision in PRECISIONS)
        return min(paths, key=lambda path: path.stem.endswith(typed))
    for path, header in _readable(paths):
        if header["kind"] == kind:
            return path
    if kind == "core" and (ZOO / "core.safetensors").is_file():
        return ZOO / "core.safetensors"
    named = ", ".join(sorted(pack_names())) if kind != "core" else ""
    raise UserError(
        f"no {kind} in {RUNS}/, expected one; run `{_MADE_BY[kind]}` or name the file"
        + (f", or a category that ships: {named}" if named else "")
    )


def cores() -> list[Path]:
    """All cores in `runs/` and those that ship, each once; the one that `newest` takes first.

    Raises UserError if there is none.
    """
    paths = [newest("core"), *(p for folder in (RUNS, ZOO) for p in sorted(folder.glob(_WEIGHTS)))]
    found: dict[str, Path] = {}
    for path, header in _readable(path for path in paths if path.is_file()):
        if header["kind"] == "core":
            found.setdefault(header["sha256"], path)
    return list(found.values())


def pack_named(name: str) -> Path | None:
    """The pack of the category `name`: that in `runs/`, else the one that ships, else None.

    Raises UserError for one that cannot be read: another would find other points.
    """
    paths = (folder / f"{name}.safetensors" for folder in (RUNS, ZOO))
    return next((p for p in paths if p.is_file() and read_header(p)["kind"] == "pack"), None)


def pack_names() -> set[str]:
    """The categories whose packs are in `runs/` or ship."""
    paths = (path for folder in (RUNS, ZOO) for path in folder.glob(_WEIGHTS))
    return {path.stem for path in paths if path.is_file() and _is_pack(path)}


def made_of(pack: Path, suffix: str) -> Path:
    """Where what is made of `pack` goes: beside it; into `runs/` for one that ships."""
    folder = RUNS if pack.resolve().parent == ZOO.resolve() else pack.parent
    return folder / f"{pack.stem}{suffix}"


def core_of(pack: Path) -> Path | None:
    """The core that `pack` was adapted from: by its sha256, in `runs/`, beside the pack, shipped.

    None for a pack that needs none. Of the files beside it, one that cannot be read is skipped with
    a warning. Raises UserError naming the sha256 when the core is nowhere.
    """
    wanted = read_header(pack).get("core_sha256")
    if not wanted:
        return None
    folders = dict.fromkeys((pack.parent, RUNS, ZOO))
    paths = (path for folder in folders for path in sorted(folder.glob(_WEIGHTS)))
    for path, header in _readable(path for path in paths if path.is_file()):
        if header["kind"] == "core" and header.get("sha256") == wanted:
            return path
    places = ", ".join(str(folder) for folder in folders)
    raise UserError(
        f"{pack}: its core, sha256 {wanted}, is not in {places}; give the file by --core"
    )


def _readable(paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file of ours with its header; the others are named in the log."""
    for path in paths:
        try:
            header = read_header(path)
        except UserError as error:
            _logger.warning("skipped %s", error)  # begins with the path
        else:
            yield path, header


def _is_pack(path: Path) -> bool:
    return any(header["kind"] == "pack" for _, header in _readable([path]))


def pick(path: Path | None, kind: str) -> Path:
    """`path`, else the newest of its kind, and say which on standard error.

    A bare name that is no file is that of a category, whose pack is meant: a folder of that name,
    such as its images, does not hide it.
    """
    known = pack_named(path.name) if path and kind == "pack" and len(path.parts) == 1 else None
    if path is not None and (known is None or path.is_file()):
        return path
    path = known or newest(kind)
    console().print(f"{kind}: {path}")
    return path


def warn_unfinished(pack: Path, header: Mapping[str, Any]) -> None:
    """Say on standard error that `pack` was written by a run that was stopped."""
    if not header.get("finished", True):
        step = header["step"]
        console().print(f"warning: {pack} was stopped at step {step}; `--resume` goes on")


def pack_of(contract: Contract, beside: Path) -> Path | None:
    """The pack that a model was made of, by its sha256: beside it, in `runs/`, or shipped."""
    for folder in dict.fromkeys((beside, RUNS, ZOO)):
        for path in sorted(folder.glob(_WEIGHTS)):
            try:
                header = read_header(path)
            except UserError:
                continue  # a file of someone else
            if header["kind"] == "pack" and header.get("sha256") == contract.pack_sha256:
                return path
    return None
