"""Layout `yolo-pose`: Ultralytics' folders, `data.yaml` with kpt_shape, images/ and labels/.

A line of labels/….txt is an object: class, box and points as shares of the width and height of the
image, upright. Points are called as `kpt_names` says, else p0, p1, …; `train`, `val` and `test` are
splits. All folders are looked for below that of the settings, by the end of their paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags

from lmk.runtime.errors import UserError
from lmk.runtime.files import read_text, walk
from lmk.runtime.images import IMAGE_SUFFIXES, UnreadableImage, open_image
from lmk.runtime.model import default_names, gate
from lmk.train.datasets.layouts.listing import edges
from lmk.train.datasets.layouts.marked import Marked, dataset_of
from lmk.train.datasets.sample import Dataset, Layout

_SPLITS = ("train", "val", "test")


def open_yolo_pose(root: Path) -> Dataset:
    """Every object of every label file; raises UserError for a line of another form."""
    source, settings = _settings(root)
    names = _names(source, settings)
    width = settings["kpt_shape"][1]
    rows, files = [], [source]
    for split, image in _images(source, settings):
        label = _label_of(image)
        if not label.is_file():
            continue
        files.append(label)
        size = _upright_size(image)
        for number, line in enumerate(read_text(label, "labels").splitlines(), 1):
            try:
                cells = np.array(line.split(), np.float64)
                if not len(cells):
                    continue
                points = cells[5 : 5 + len(names) * width].reshape(len(names), width)
            except ValueError:
                raise UserError(
                    f"{label}, line {number}: got '{line[:40]}', expected class, box and "
                    f"{len(names)} points of {width} numbers, as {source.name} says"
                ) from None
            there = np.any(points[:, 2:] > 0 if width == 3 else points > 0, axis=1)
            places = np.where(there[:, None], points[:, :2] * size, np.nan).astype(np.float32)
            x, y, w, h = (float(each) for each in cells[1:5] * np.tile(size, 2))
            rows.append(Marked(str(image), places, box=(x - w / 2, y - h / 2, w, h), split=split))
    return dataset_of("yolo-pose", source.parent, files, names, rows)


def landmark_names(root: Path) -> tuple[str, ...]:
    """Names of the points."""
    return _names(*_settings(root))


def _names(source: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    shape: Any = settings.get("kpt_shape")
    names: Any = settings.get("kpt_names")
    if isinstance(names, dict):  # by class
        names = next(iter(names.values()), None)
    is_shape = isinstance(shape, list) and len(shape) == 2 and shape[1] in (2, 3)
    if not is_shape or not gate.COUNT.holds(shape[0]):
        raise UserError(f"{source}: got kpt_shape {gate.short(shape)}, expected [points, 2 or 3]")
    if not isinstance(names, list) or len(names) != shape[0]:
        return default_names(shape[0])
    return tuple(each if isinstance(each, str) else gate.short(each) for each in names)


def _settings(root: Path) -> tuple[Path, dict[str, Any]]:
    source = _file(root)
    assert source is not None
    try:
        import yaml

        values = yaml.safe_load(read_text(source, "settings of a data set"))
    except ImportError as error:
        raise UserError(f"{source}: needs PyYAML; pip install pyyaml") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            f"{source}: cannot be read as YAML ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{source}: got no table, expected path, train, val and kpt_shape")
    for name in ("path", *_SPLITS):
        folders = values.get(name) or ""
        listed = folders if isinstance(folders, list) else [folders]
        if not all(isinstance(each, str) for each in listed):
            raise UserError(f"{source}: got {name} {gate.short(folders)}, expected a folder's name")
    return source, values


def _images(source: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """With their splits: what the settings name, else all below images/."""
    base = _below(source.parent, settings.get("path") or "") or source.parent
    named: dict[str, Any] = {split: settings[split] for split in _SPLITS if settings.get(split)}
    for split, folders in (named or {"": "images"}).items():
        for folder in folders if isinstance(folders, list) else [folders]:
            place = _below(base, folder) or _below(source.parent, folder)
            for path in sorted(walk(place)) if place else ():
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    yield split, path


def _below(base: Path, listed: str) -> Path | None:
    """The folder below `base` that a path, perhaps of another machine, ends in; None if none is."""
    parts = [p for p in PurePosixPath(listed.replace("\\", "/")).parts if p not in ("/", "..")]
    places = (base.joinpath(*parts[n:]) for n in range(max(1, len(parts))))
    return next((place for place in places if place.is_dir()), None)


def _upright_size(path: Path) -> tuple[int, int]:
    """(width, height); (1, 1) for an image that cannot be read, which its reader tells."""
    try:
        with open_image(path) as image:
            is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.height, image.width) if is_turned else image.size
    except UnreadableImage:
        return 1, 1


def _label_of(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _file(root: Path) -> Path | None:
    found = [root] if root.is_file() else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    return next(
        (p for p in found if p.suffix in (".yaml", ".yml") and "kpt_shape" in edges(p)), None
    )


LAYOUT = Layout(
    "yolo-pose",
    "data.yaml with kpt_shape, images/ and labels/",
    lambda root: _file(root) is not None,
    open_yolo_pose,
    landmark_names,
)
