"""Layout `coco`: key points as COCO writes them, one sample an annotated object.

Files `*.json` in the folder or its `annotations/`, of `images`, `annotations` and `categories`.
A file is a split if its name says train, val or test. Images lie in the folder, in `images/`, or
in a folder that is called as the end of the file's name: `person_keypoints_train2017.json` ->
`train2017/`. Annotations without a labelled point, and crowds, are passed over.

Points of COCO are pixel indices, so ours as they are (Detectron2 adds 0.5 to them for edge
coordinates); its boxes are edge coordinates, as ours. v = 0: missing; hidden points (1) are kept.
The image is upright, as EXIF has it turned, unless only its stored pixels have the width and height
that are listed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import Box, read_image
from lmk.train.datasets.layouts.listing import Listing, edges, is_inside, read_json
from lmk.train.datasets.sample import Dataset, Layout, Sample, scheme_of

_KEYS = ("images", "annotations", "categories")
_NAME_LIST = re.compile(r'"keypoints"\s*:\s*\[\s*("[^\[\]]*")\s*\]')  # of numbers elsewhere


def open_coco(root: Path) -> Dataset:
    """Read the points (x, y) of every annotated object, in pixels of its image, and its box.

    Absent images, unlisted images, points and boxes that are no numbers, and objects twice are
    left out and told in `problems`. Landmarks of one name are one in all categories and files.
    Raises UserError if a file is no COCO file, or if nothing is left.
    """
    contents = {path: _content(path) for path in _files(root)}
    base = root if root.is_dir() else root.parent
    listing = Listing("coco", base, scheme_of(_all_names(root, contents), root))
    for path, content in contents.items():
        reader = _Reader(
            listing, listing.use(path), _images(path, content), _names_by_category(content)
        )
        for index, each in enumerate(content["annotations"], 1):
            if isinstance(each, dict) and each.get("keypoints") and not each.get("iscrowd"):
                reader.take(each, f"annotation {each.get('id', f'number {index}')}")
            else:
                kind = f"annotations without keypoints, or of crowds ({path.name})"
                listing.note(kind, f"number {index}")
    return listing.dataset(base.resolve().name)


def landmark_names(root: Path) -> tuple[str, ...]:
    """Names of the annotated landmarks; reads a whole file only if its ends do not tell."""
    lists = [_NAME_LIST.findall(edges(path)) for path in _files(root)]
    if all(lists):
        names = [name for each in lists for part in each for name in re.findall(r'"([^"]*)"', part)]
        return tuple(dict.fromkeys(names))
    return _all_names(root, {path: _content(path) for path in _files(root)})


class _Reader:
    """One file of annotations -> samples of a listing."""

    def __init__(
        self,
        listing: Listing,
        source: Path,
        images: dict[Any, _Image],
        names: dict[Any, tuple[str, ...]],
    ) -> None:
        self._listing, self._names = listing, names  # the latter by category
        self._images = images  # by identifier
        self._source = source.name
        self._split = _split_of(source.stem)
        end = source.stem.rsplit("_", 1)[-1]
        self._folders = ("", "images/", f"{end}/", f"images/{end}/")
        self._scanned: set[str] = set()

    def take(self, each: dict[str, Any], label: str) -> None:
        """Add one annotated object, or count why not."""
        try:
            listed = self._images.get(each.get("image_id"))
            names, everything = self._names.get(each.get("category_id")), self._listing.scheme.names
            if names is None and len(self._names) == 1:
                names = next(iter(self._names.values()))
            if names is None:
                raise ValueError("a category without landmarks")
            points = np.full((len(everything), 2), np.nan, np.float32)
            places = [everything.index(name) for name in names]
            points[places] = _points(each["keypoints"], len(names))
            box = _box(each.get("bbox"))
        except TypeError:  # a list or an object, where a number or a text is the identifier
            return self._leave_out("annotations with an identifier of another type", label)
        except ValueError as error:
            return self._leave_out(f"annotations with {error}", label)
        if np.isnan(points).all():
            return self._listing.note(f"objects without a visible point ({self._source})", label)
        if listed is None:
            return self._leave_out("annotations of images that are not listed", label)
        name = self._find(listed.file_name)
        if not name:
            return self._leave_out("annotated objects whose image is absent", listed.file_name)
        key = f"{name} {points.tobytes().hex()}"
        if key in self._listing.samples:
            return self._leave_out("objects that are there twice", label)
        read = partial(read_image, self._listing.base / name, annotated=listed.size)
        self._listing.samples[key] = Sample(name, read, points, self._split, box)
        return None

    def _leave_out(self, kind: str, example: str) -> None:
        self._listing.leave_out(f"{kind} ({self._source})", example)

    def _find(self, name: str) -> str:
        """The name relative to the listing's base, "" if it is in none of the folders."""
        for candidate in (folder + name for folder in self._folders if is_inside(name)):
            folder = candidate.rpartition("/")[0]
            if folder not in self._scanned:
                self._scanned.add(folder)
                self._listing.scan(folder)
            if candidate in self._listing.files:
                return candidate
        return ""


def _points(values: Any, num_landmarks: int) -> NDArray[np.float32]:
    """(P,2), NaN where v is 0; raises ValueError that says what is wrong with them."""
    try:
        table = np.array(values, np.float64).reshape(num_landmarks, 3)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"other than 3 numbers for each of {num_landmarks} landmarks") from None
    if not np.isfinite(table).all():
        raise ValueError("a point that is no number")
    return np.where(table[:, 2:] > 0, table[:, :2], np.nan).astype(np.float32)


def _box(values: Any) -> Box | None:
    """None where there is no box; raises ValueError that says what is wrong with it."""
    if values is None:
        return None
    try:
        x, y, width, height = map(float, values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a box other than 4 numbers") from None
    if not (np.isfinite((x, y, width, height)).all() and width > 0 and height > 0):
        raise ValueError("a box without area")
    return x, y, width, height


def _files(root: Path) -> list[Path]:
    """The JSON files with key points, told by their ends; instances and captions have none."""
    found = [root] if root.is_file() else [*root.glob("*.json"), *root.glob("annotations/*.json")]
    found = sorted(path for path in found if path.suffix == ".json")
    return [path for path in found if _is_coco(edges(path))]


def _is_coco(text: str) -> bool:
    return '"keypoints"' in text and any(f'"{key}"' in text for key in _KEYS)


def _content(path: Path) -> dict[str, list[Any]]:
    content = read_json(path)
    for key in _KEYS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path}: got no list '{key}', expected a COCO file; get it again")
    try:
        _names_by_category(content)
    except (AttributeError, TypeError):
        raise UserError(
            f"{path}: got a category of another form, expected an identifier and a list of names "
            "as 'keypoints'; get it again"
        ) from None
    return content


class _Image(NamedTuple):
    file_name: str
    size: tuple[Any, Any]  # (height, width) of the pixels that points are in


def _images(path: Path, content: dict[str, list[Any]]) -> dict[Any, _Image]:
    """By identifier."""
    try:
        return {
            # Files that were made on Windows may have its separator.
            each["id"]: _Image(
                each["file_name"].replace("\\", "/"), (each.get("height"), each.get("width"))
            )
            for each in content["images"]
        }
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: got an image without id or file_name, expected both; get it again"
        ) from None


def _names_by_category(content: dict[str, list[Any]]) -> dict[Any, tuple[str, ...]]:
    return {
        each.get("id"): tuple(map(str, each["keypoints"]))
        for each in content["categories"]
        if each.get("keypoints")
    }


def _all_names(root: Path, contents: dict[Path, dict[str, list[Any]]]) -> tuple[str, ...]:
    """The names of the landmarks of all categories and files."""
    found = [
        name
        for each in contents.values()
        for names in _names_by_category(each).values()
        for name in names
    ]
    if not found:
        raise UserError(f"{root}: got no category with landmarks, expected 'keypoints' in one")
    return tuple(dict.fromkeys(found))


def _split_of(stem: str) -> str:
    found = re.search(r"(?:^|[^a-z])(train|val|test)", stem.lower())
    return found.group(1) if found else ""


LAYOUT = Layout(
    "coco",
    "*.json or annotations/*.json with images, annotations and categories that have keypoints",
    lambda root: bool(_files(root)),
    open_coco,
    landmark_names,
)
