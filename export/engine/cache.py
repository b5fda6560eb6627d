"""Recipe -> engine: the one in the user's cache folder, or built now and the reason for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lmk.runtime.errors import UserError, write_error
from lmk.runtime.model import (
    LIBRARY_TITLES,
    VERSION,
    EngineInfo,
    Recipe,
    read_engine,
    read_info,
    write_engine,
)

Built = tuple[EngineInfo, bytes]
_SUFFIX = ".engine"


@dataclass(frozen=True)
class Cached:
    """An engine and where it comes from."""

    info: EngineInfo
    plan: bytes
    reason: str  # why it was built, in words; "" if it was there


def cached_engine(
    recipe: Recipe,
    pack_sha256: str,
    folder: Path,
    build: Callable[[], Built],
    waiting: Callable[[], None] = lambda: None,
) -> Cached:
    """The engine of `recipe` in `folder`, built there by `build` if it is missing or damaged.

    pack_sha256: of the pack that the ONNX file was made from; its other engines give the reason.
    Of two processes that want the same engine one builds and the other waits, after a call of
    `waiting`. Raises UserError when the folder cannot be written, and what `build` raises: then
    nothing is kept.
    """
    key = json.dumps([VERSION, asdict(recipe)], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()
    path = folder / f"{recipe.precision}-{digest[:20]}{_SUFFIX}"
    with _lock(path.with_suffix(".lock"), waiting):
        try:
            return Cached(*read_engine(path), reason="")
        except UserError as error:
            if path.exists():  # what the error says, without what a user should do about it
                what = str(error).removeprefix(f"{path}: ").split(";")[0]
                reason = f"rebuilt: cached engine: {what}"
            else:
                reason = _missing(recipe, pack_sha256, folder)
        info, plan = build()
        try:
            write_engine(path, info, plan)
        except UserError as error:
            raise _no_room(error) from error
    return Cached(info, plan, reason)


def difference(old: Recipe, new: Recipe) -> str:
    """Why an engine of the recipe `old` is not one of `new`, in words; "" if it is."""
    title = LIBRARY_TITLES[new.library]
    if old.precision != new.precision:
        return f"no engine for precision {new.precision} yet"
    if old.library != new.library:
        return f"no engine of {title} yet"
    if old.gpu != new.gpu or old.targets != new.targets:
        return f"no engine for {new.place} yet"
    if old.batches != new.batches:
        return f"no engine for batches of {', '.join(map(str, new.batches))} yet"
    if old.library_version != new.library_version:
        return f"rebuilt: {title} {old.library_version} -> {new.library_version}"
    if old.onnx_sha256 != new.onnx_sha256:
        return "rebuilt: the ONNX file has changed"
    changed = [
        f"{name} {before} -> {after}"
        for name in ("refittable", "level", "workspace_mib")
        if (before := getattr(old, name)) != (after := getattr(new, name))
    ]
    return f"rebuilt: {', '.join(changed)}" if changed else ""


def _missing(recipe: Recipe, pack_sha256: str, folder: Path) -> str:
    """Compare with the nearest engine of the same pack: that with the most values in common."""
    known = []
    for path in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: -path.stat().st_mtime):
        with suppress(UserError):  # told when that engine itself is asked for
            info = read_info(path)
            known += [info.recipe] if info.contract.pack_sha256 == pack_sha256 else []
    if not known:
        return "no engine of this pack yet"
    wanted = asdict(recipe)
    nearest = max(known, key=lambda old: sum(wanted[name] == v for name, v in asdict(old).items()))
    return difference(nearest, recipe) or "rebuilt: its file has another name"


def _no_room(error: UserError) -> UserError:
    return UserError(f"engine cache: {error}; LMK_CACHE names another folder")


@contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`."""
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        raise _no_room(write_error(path, error)) from error
    try:
        yield
    finally:
        lock.release()
