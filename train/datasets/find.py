"""What the user calls the data -> data set: a path, a name, or something built in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import user_folder, walk
from lmk.runtime.images import IMAGE_SUFFIXES
from lmk.runtime.sources import VIDEO_SUFFIXES, fixed_part, is_pattern, tell_unread
from lmk.train.datasets.drawn import drawn
from lmk.train.datasets.layouts import (
    LAYOUTS,
    USUAL_FILMS,
    FilmOptions,
    folder,
    open_films,
    table,
    video,
)
from lmk.train.datasets.sample import Dataset, Layout

BUILTIN = "builtin:"
BUILTIN_COUNT = 2000

_PERSON = ({"l_hip", "r_shoulder"}, {"left_hip", "right_shoulder"})  # tell people's landmarks


def homes() -> list[Path]:
    """Where data sets are looked for by name: $LMK_DATA, or data/ here and the user's own."""
    if given := os.environ.get("LMK_DATA"):
        return [Path(given)]
    try:
        return [Path("data"), user_folder("XDG_DATA_HOME", ".local/share", "LMK_DATA")]
    except UserError:  # a user without a home has no data there
        return [Path("data")]


def layout_of(root: Path) -> Layout:
    """The layout of a folder, by the files in it."""
    return next(layout for layout in LAYOUTS.values() if layout.recognises(root))


def found() -> dict[str, Path]:
    """Name -> folder of every data set in `homes`; the first home wins."""
    folders: dict[str, Path] = {}
    for home in homes():
        if home.is_dir():
            for child in sorted(home.iterdir()):
                if not child.is_dir() or child.name.startswith("."):
                    continue
                images = (path.suffix.lower() in IMAGE_SUFFIXES for path in walk(child))
                if layout_of(child) is not folder.LAYOUT or any(images):
                    folders.setdefault(child.name, child)
    return folders


def open_dataset(spec: str, layout: str | None = None, films: FilmOptions = USUAL_FILMS) -> Dataset:
    """Open `spec`: "builtin:NAME", a folder, a film, a pattern, or a name of these in `homes`.

    The layout is recognised unless given. Raises UserError as `locate`, as the layout does, and for
    boxes of what is no film.
    """
    if spec.startswith(BUILTIN):
        if layout:
            raise UserError(f"--layout {layout}: got {spec}, expected a folder; leave it out")
        return drawn.builtin(spec.removeprefix(BUILTIN), BUILTIN_COUNT)
    root, chosen = locate(spec, layout)
    if chosen is video.LAYOUT:
        return open_films(root, films)
    if films.boxes:
        raise UserError(f"--boxes: got {films.boxes} for {root} without films; leave it out")
    dataset = chosen.read(root)
    if chosen is folder.LAYOUT:  # which tells all that it does not read
        return dataset
    return replace(dataset, problems=(*dataset.problems, *tell_unread(root)))


def locate(spec: str, layout: str | None = None) -> tuple[Path, Layout]:
    """The folder, film or pattern that `spec`, a path or a name, is, and its layout; none is read.

    Raises UserError listing what there is, and for a folder that is not of the layout that was
    given, what was looked for and what was found.
    """
    candidates = (Path(spec), *(home / spec for home in homes()))
    root = next((path for path in candidates if path.is_dir()), None)
    root = root or next((path for path in candidates if path.is_file()), None)
    if root is None and is_pattern(spec):
        root = Path(spec)
    if root is None and Path(spec).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        raise UserError(f"--data {spec}: got no such file; check the path")
    if root is None:
        names = ", ".join([*found(), *(BUILTIN + name for name in drawn.CATEGORIES)])
        places = " and ".join(str(home) for home in homes())
        raise UserError(
            f"--data {spec}: no such folder or film, here or in {places}; give one, or "
            f"one of {names}"
        )
    if not root.is_dir() and layout is None:
        return root, layout_of(root)
    if not root.is_dir() and not LAYOUTS[str(layout)].recognises(root):
        raise UserError(f"--layout {layout}: got {root}, expected a folder; leave it out")
    chosen = LAYOUTS[layout] if layout else layout_of(root)
    chosen.check(root)
    return root, chosen


def category_name(spec: str) -> str:
    """What a category is called after its data: the last part of the path or name.

    After a film without its suffix, after a pattern the folder it begins in.
    """
    path = fixed_part(spec) if is_pattern(spec) else Path(spec.removeprefix(BUILTIN))
    is_file = os.path.isfile(path) or path.suffix.lower() in VIDEO_SUFFIXES
    return path.resolve().stem if is_file and not path.is_dir() else path.resolve().name


def first_pose_set() -> str:
    """Name of the first data set with annotated people, else with any annotated points.

    Raises UserError that says how to get one.
    """
    annotated = {}
    for name, root in found().items():
        names = set(layout_of(root).names(root))
        if names:
            annotated[name] = any(some <= names for some in _PERSON)
    for pose in (True, False):
        for name, is_pose in annotated.items():
            if is_pose is pose:
                return name
    places = " or ".join(str(home) for home in homes())
    raise UserError(
        f"no annotated data set in {places}, expected a folder with {table.FILE_NAME} or of "
        "another annotated layout; give one by --data, set LMK_DATA, or "
        f"try --data {BUILTIN}{drawn.CATEGORIES[0]}"
    )
