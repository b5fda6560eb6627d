"""Layout `mpii`: MPII Human Pose, several people an image.

`mpii_human_pose_v1_u12_1.mat` as released, or the people that others extracted from it as JSON:
`mpii_annotations.json`, or `train.json` and `valid.json`. The JSON alone is enough; beside the
.mat it says who is used for validation, since the points of the test images are withheld.

Errors are divided by the head length: 0.6 × the diagonal of the head box, so PCKh@0.5 is a
threshold of half of it. The JSON knows no head box: there it is the distance from upper neck to
head top, which is about 4/3 of that. Hidden joints are kept, as in PCKh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import Box, read_image
from lmk.train.datasets.layouts.listing import Listing, edges, read_json
from lmk.train.datasets.layouts.matlab import ONE_BASED, field, number, read_mat, rows, text
from lmk.train.datasets.sample import Dataset, Layout, Normaliser, Sample, Scheme, flips_by_name

FILE_NAME = "mpii_human_pose_v1_u12_1.mat"
# fmt: off
NAMES = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "thorax", "upper_neck",
    "head_top", "r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow", "l_wrist",
)
# fmt: on
SCHEME = Scheme(NAMES, Normaliser("head", "sample"), flips_by_name(NAMES))
_NECK_TO_TOP = (NAMES.index("upper_neck"), NAMES.index("head_top"))
JSON_SCHEME = replace(SCHEME, normaliser=Normaliser("neck to head top", _NECK_TO_TOP))
_PLACES = (".", "annot", "annotations", "mpii_human_pose_v1_u12_2", "mpii_human_pose_v1_u12_1")
_LISTS = ("mpii_annotations.json", "train.json", "valid.json")


@dataclass(frozen=True)
class _Person:
    image: str
    points: NDArray[np.float32]  # (16,2) pixels counted from 1, NaN where missing
    centre: tuple[float, float]  # rough, of the person; counted from 1
    scale: float  # height / 200 px
    split: str
    head_length: float = float("nan")  # px

    @property
    def key(self) -> tuple[str, str]:
        """The same in the .mat and in the lists made from it, which round."""
        return self.image, "{:.0f} {:.0f}".format(*self.centre)


def open_mpii(root: Path) -> Dataset:
    """Read people: 16 points (x, y) in pixels of the image, the box to crop to, the head length.

    Left out and told in `problems`: absent images, people without place or size, points that are
    no number, people twice. Told in `notes`: people whose points are withheld. Raises UserError if
    a file cannot be read or nothing is left.
    """
    table, lists = _found(root, (FILE_NAME,)), _lists(root)
    folder = root / "images" if (root / "images").is_dir() else root
    listing = Listing("mpii", folder, SCHEME if table else JSON_SCHEME)
    listing.scan()
    listed = [person for path in lists for person in _from_list(listing.use(path), listing)]
    people = listed
    if table:
        people = _validated(list(_from_mat(listing.use(table[0]), listing)), listed, listing)
    for person in people:
        _take(listing, person)
    return listing.dataset(root.resolve().name)


def _from_mat(table: Path, listing: Listing) -> Iterator[_Person]:
    release = rows(read_mat(table, "RELEASE"))
    if not len(release) or not {"annolist", "img_train"} <= set(release.dtype.names or ()):
        raise UserError(f"{table}: RELEASE lacks annolist or img_train; get the original file")
    images = rows(field(release[0], "annolist"))
    is_train = field(release[0], "img_train").ravel()
    if len(images) != len(is_train):
        got = f"{len(images)} images in annolist, {len(is_train)} in img_train"
        raise UserError(f"{table}: got {got}, expected as many; get the original file")
    for image, train in zip(images, is_train, strict=True):
        names = rows(field(image, "image"))
        name = text(names[0], "name") if len(names) else ""
        for rect in rows(field(image, "annorect")):
            # Fields are missing from a whole image, or empty for one of its people.
            lists = rows(field(rect, "annopoints"))
            points = [row for each in lists for row in rows(field(each, "point"))]
            if not points and train:
                listing.note("people of training images without points", name)
            elif not points:
                listing.note("people of test images, whose points are withheld", name)
            elif all(0 <= number(point, "id") < len(NAMES) for point in points):
                yield _person(name, rect, points, "train" if train else "test")
            else:
                listing.leave_out("people with a joint that is none of the 16", name)


def _person(name: str, rect: Any, joints: Iterable[Any], split: str) -> _Person:
    points = np.full((len(NAMES), 2), np.nan, np.float32)
    for joint in joints:
        # A joint that is listed without a place must not pass for one that is not listed.
        xy = np.array([number(joint, "x"), number(joint, "y")])
        points[int(number(joint, "id"))] = np.where(np.isfinite(xy), xy, np.inf)
    places = rows(field(rect, "objpos"))
    x, y = (number(places[0], each) for each in "xy") if len(places) else (np.nan, np.nan)
    corners = [number(rect, corner) for corner in ("x1", "y1", "x2", "y2")]
    diagonal = float(np.hypot(corners[2] - corners[0], corners[3] - corners[1]))
    return _Person(name, points, (x, y), number(rect, "scale"), split, 0.6 * diagonal)


def _from_list(path: Path, listing: Listing) -> Iterator[_Person]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: got no list, expected one of people; get it again")
    for index, entry in enumerate(entries, 1):
        try:
            yield _from_entry(entry, "val" if path.stem == "valid" else "train")
        except (LookupError, TypeError, ValueError, OverflowError):
            listing.leave_out(f"entries of {path.name} that are incomplete", f"number {index}")


def _from_entry(entry: dict[str, Any], split: str) -> _Person:
    """Of either kind of list; both write a missing joint as a place outside the image."""
    if "joint_self" in entry:
        values = np.array(entry["joint_self"], np.float32)
        place, scale, name = entry["objpos"], entry["scale_provided"], entry["img_paths"]
        split = "val" if float(entry["isValidation"]) else "train"
        points, seen = values[:, :2], (values[:, :2] != 0).any(axis=1)
    else:
        points = np.array(entry["joints"], np.float32)
        seen = np.array(entry["joints_vis"]) > 0
        place, scale, name = entry["center"], entry["scale"], entry["image"]
    if points.shape != (len(NAMES), 2) or not isinstance(name, str):
        raise ValueError
    points = np.where(seen[:, None], np.where(np.isfinite(points), points, np.inf), np.nan)
    return _Person(name, points, (float(place[0]), float(place[1])), float(scale), split)


def _validated(people: list[_Person], listed: list[_Person], listing: Listing) -> list[_Person]:
    """Who is listed for validation becomes that; others on the same images are left out."""
    if not listed:
        listing.note("no validation split", f"neither {_LISTS[0]} nor {_LISTS[2]} is there")
        return people
    splits = {person.key: person.split for person in listed}
    judged = {person.image for person in listed if person.split == "val"}
    kept = []
    for person in people:
        if person.key in splits:
            kept.append(replace(person, split=splits[person.key]))
        elif person.image in judged:
            listing.note("people on validation images who are in no list", person.image)
        else:
            kept.append(person)
    return kept


def _take(listing: Listing, person: _Person) -> None:
    key = f"{person.image} {person.points.tobytes().hex()}"
    if person.image not in listing.files:
        listing.leave_out("annotated people whose image is absent", person.image or "(no name)")
    elif not np.isfinite((*person.centre, person.scale)).all() or person.scale <= 0:
        listing.leave_out("people without a place and a size", person.image)
    elif np.isinf(person.points).any() or np.isnan(person.points).all():
        what = "people with a point that is no number, or without any"
        listing.leave_out(what, person.image)
    elif key in listing.samples:
        listing.leave_out("people who are there twice", person.image)
    else:
        read = partial(read_image, listing.base / person.image, upright=False)
        points, box = person.points - np.float32(ONE_BASED), _box(person)
        sample = Sample(person.image, read, points, person.split, box, person.head_length)
        listing.samples[key] = sample


def _box(person: _Person) -> Box:
    """The square that the literature crops to: a little lower and larger, for the limbs."""
    side = 200 * 1.25 * person.scale
    x, y = person.centre
    x, y = x - ONE_BASED + 0.5, y - ONE_BASED + 0.5 + 15 * person.scale  # of pixels' edges
    return (x - side / 2, y - side / 2, side, side)


def _found(root: Path, names: tuple[str, ...]) -> list[Path]:
    paths = (root / place / name for place in _PLACES for name in names)
    return [path for path in paths if path.is_file()]


def _lists(root: Path) -> list[Path]:
    """One complete list, or the two halves; never both, they hold the same people."""
    found = _found(root, _LISTS)
    whole = [path for path in found if path.name == _LISTS[0]]
    words = ('"joints_vis"', '"joint_self"')
    return whole[:1] or [path for path in found if any(word in edges(path) for word in words)]


LAYOUT = Layout(
    "mpii",
    f"{FILE_NAME}, {_LISTS[0]} or annot/train.json and valid.json, and images/*.jpg",
    lambda root: bool(_found(root, (FILE_NAME,)) or _lists(root)),
    open_mpii,
    NAMES,
)
