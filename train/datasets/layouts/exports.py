"""Layouts `label-studio` and `cvat`: what these tools export, JSON and XML."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular
from lmk.runtime.images import Box
from lmk.train.datasets.layouts.listing import edges, read_json
from lmk.train.datasets.layouts.marked import Marked, dataset_of
from lmk.train.datasets.sample import Dataset, Layout

_FAR = 1e6  # pixels: no image is as large


@dataclass
class _Object:
    """One object in the making: its named points, in pixels, edges, as both tools have them."""

    file: str
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    frame: int | None = None
    box: Box | None = None
    split: str = ""
    size: tuple[int, int] | None = None


def open_label_studio(root: Path) -> Dataset:
    """Every annotated object of the tasks: points with one parent, else all of an image, are one.

    Raises UserError for a file of another form and as `dataset_of`.
    """
    return _dataset("label-studio", root, _json_files(root), _tasks)


def open_cvat(root: Path) -> Dataset:
    """Every skeleton, group of points or, of images without either, all their points.

    Of "CVAT for images" and "CVAT for video". Raises UserError as `open_label_studio`.
    """
    return _dataset("cvat", root, _xml_files(root), _annotations)


def _dataset(layout: str, root: Path, files: list[Path], read: Any) -> Dataset:
    found = [each for path in files for each in _read(path, read)]
    names = _names(found)
    rows = []
    for each in found:
        points = np.full((len(names), 2), np.nan, np.float32)
        for name, place in each.points.items():
            points[names.index(name)] = np.array(place) - 0.5
        rows.append(Marked(each.file, points, each.frame, each.box, each.split, each.size))
    return dataset_of(layout, root if root.is_dir() else root.parent, files, names, rows)


def _names(found: list[_Object]) -> list[str]:
    return list(dict.fromkeys(name for each in found for name in each.points))


def _read(path: Path, read: Any) -> list[_Object]:
    try:
        found: list[_Object] = list(read(path))
        for each in found:
            for name, place in each.points.items():
                if not all(abs(value) < _FAR for value in place):
                    raise ValueError(f"'{name}' at {place}")
        return found
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        raise UserError(
            f"{path}: got another form than its tool exports ({error!r}); export it again"
        ) from error


def _tasks(path: Path) -> Iterator[_Object]:
    for task in read_json(path):
        data = task["data"]
        file = unquote(str(data.get("image") or data.get("img") or next(iter(data.values()), "")))
        file = file.split("?d=")[-1]  # of local storage
        for annotation in task.get("annotations") or task.get("completions") or ():
            objects: dict[Any, _Object] = defaultdict(partial(_Object, file))
            results = annotation["result"]
            boxes = {each["id"] for each in results if each.get("type") == "rectanglelabels"}
            for each in results:
                if each.get("type") not in ("keypointlabels", "rectanglelabels"):
                    continue
                width, height = each["original_width"], each["original_height"]
                value, is_box = each["value"], each["type"] == "rectanglelabels"
                parent = each["id"] if is_box else each.get("parentID")
                one = objects[parent if parent in boxes else None]
                one.size = (height, width)
                x, y = value["x"] / 100 * width, value["y"] / 100 * height
                if is_box:
                    one.box = (x, y, value["width"] / 100 * width, value["height"] / 100 * height)
                else:
                    one.points[str(value["keypointlabels"][0])] = (x, y)
            if None in objects and len(objects) == 2:  # a lone box is about the lone points
                [other] = [one for key, one in objects.items() if key is not None]
                if not other.points:
                    objects[None].box = other.box
            yield from (one for one in objects.values() if one.points)


def _annotations(path: Path) -> Iterator[_Object]:
    try:
        with open_regular(path) as file:
            root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: cannot be read as XML ({error}); export it again") from error
    for image in root.iter("image"):
        size = int(image.attrib["height"]), int(image.attrib["width"])
        groups: dict[str, _Object] = {}
        for number, each in enumerate(image):
            if each.tag not in ("skeleton", "points", "box"):
                continue
            group = each.get("group_id") or ""
            key = f"skeleton {number}" if each.tag == "skeleton" else group
            one = groups.setdefault(
                key, _Object(image.attrib["name"], split=image.get("subset") or "", size=size)
            )
            if each.tag == "box":
                left, top, right, bottom = (
                    float(each.attrib[n]) for n in ("xtl", "ytl", "xbr", "ybr")
                )
                one.box = (left, top, right - left, bottom - top)
            else:
                one.points |= _points_of(each)
        boxes = [one.box for one in groups.values() if one.box and not one.points]
        found = [one for one in groups.values() if one.points]
        if len(found) == len(boxes) == 1 and found[0].box is None:
            found[0].box = boxes[0]
        yield from found
    film = root.findtext(".//meta//source") or path.stem
    frames: dict[tuple[int, int], _Object] = {}
    for number, track in enumerate(root.iter("track")):
        for each in track:
            if each.tag in ("skeleton", "points") and each.get("outside") != "1":
                frame = int(each.attrib["frame"])
                place = (frame, number if each.tag == "skeleton" else -1)
                one = frames.setdefault(place, _Object(film, frame=frame))
                one.points |= _points_of(each, track.get("label"))
    yield from (one for _, one in sorted(frames.items()) if one.points)


def _points_of(
    element: ElementTree.Element, label: str | None = None
) -> dict[str, tuple[float, float]]:
    """The named points of a skeleton, or of points, which are numbered where they are several."""
    if element.tag == "skeleton":
        there = [each for each in element.iter("points") if each.get("outside") != "1"]
        return {name: place for each in there for name, place in _points_of(each).items()}
    name = element.get("label") or label or "point"
    places = [tuple(map(float, pair.split(","))) for pair in element.attrib["points"].split(";")]
    if any(len(place) != 2 for place in places):
        raise ValueError(element.attrib["points"][:40])
    if len(places) == 1:
        return {name: (places[0][0], places[0][1])}
    return {f"{name}_{n}": (place[0], place[1]) for n, place in enumerate(places)}


def _json_files(root: Path) -> list[Path]:
    found = [root] if root.is_file() else sorted(root.glob("*.json"))
    return [p for p in found if p.suffix == ".json" and '"keypointlabels"' in edges(p)]


def _xml_files(root: Path) -> list[Path]:
    found = (
        [root] if root.is_file() else sorted([*root.glob("*.xml"), *root.glob("annotations/*.xml")])
    )
    return [p for p in found if p.suffix == ".xml" and "<annotations" in edges(p)]


LABEL_STUDIO = Layout(
    "label-studio",
    "*.json, tasks of Label Studio with keypointlabels, and the images",
    lambda root: bool(_json_files(root)),
    open_label_studio,
    lambda root: tuple(_names([each for p in _json_files(root) for each in _read(p, _tasks)])),
)
CVAT = Layout(
    "cvat",
    "*.xml, CVAT for images or for video, and the images or the film",
    lambda root: bool(_xml_files(root)),
    open_cvat,
    lambda root: tuple(_names([each for p in _xml_files(root) for each in _read(p, _annotations)])),
)
