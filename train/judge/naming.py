"""Pack + a few annotated images -> the same pack, which gives points by the names they have."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.images import Box, crop, open_image, square_around, to_crop, whole
from lmk.runtime.model import read_header, workspace
from lmk.runtime.owner import Owned
from lmk.runtime.regions import Finding, read_boxes
from lmk.runtime.sources import VIDEO_SUFFIXES
from lmk.runtime.terminal import console
from lmk.train.datasets import (
    CONTEXT,
    Dataset,
    PointArray,
    Sample,
    Scheme,
    normalised_by,
    open_dataset,
    scheme_of,
)
from lmk.train.datasets.layouts import open_table
from lmk.train.judge.point_fit import Doubles, fit, leave_one_out, mean_shape
from lmk.train.judge.point_maps import (
    Learning,
    Learnt,
    find_all,
    learn_maps,
    left_out_parts,
)
from lmk.train.network import LandmarkNetwork, NamingLayer, load_pack, save_pack

FEWEST = 5  # images, and of each point: with 4 no test can tell the fit from chance
# Of shuffled annotations of faces 2 % pass both with 5 images, 0.3 % with 10, of random ones none;
# of true ones 94 % and 96 %.
BETTER = 0.8  # the error must be at most so much of that of the mean shape
CLEARLY = 0.97  # of the landmarks' error, for what is learnt to be taken
CHANCE = 0.1  # that as many images are nearer, by as much, if the landmarks tell nothing
_NAME = re.compile(r"[\w.\-]([\w.\- ]*[\w.\-])?")
_MADE_ANEW = ("sha256", "versions", "probe")
_FRAME = re.compile(r"(?:^|/)([^/#]+)(?:#|/\D*)(\d+)(?:\.\w+)?$")
_MARGIN = 0.5  # of an image's longer side: how far outside it a point may lie


@dataclass(frozen=True)
class NamedCrops:
    """Images with named points, as detection will see them."""

    scheme: Scheme  # of the points
    crops: NDArray[np.uint8]  # (N,S,S,3) RGB
    points: PointArray  # (N,M,2) in crop pixels, NaN where missing
    frames: tuple[str, ...] = ()  # where each is from
    around: NDArray[np.uint8] | None = None  # (N,R,R,3) the crops with what is about them, to learn
    photo_px: PointArray | None = None  # (N,): pixels of the image as it is, a crop pixel

    def without(self, names: Sequence[str]) -> NamedCrops:
        """The same without some of the points."""
        kept = [n for n, name in enumerate(self.scheme.names) if name not in names]
        scheme, by = scheme_of([self.scheme.names[n] for n in kept]), self.scheme.normaliser
        if isinstance(by.pair, tuple) and all(place in kept for place in by.pair):
            pair = kept.index(by.pair[0]), kept.index(by.pair[1])
            scheme = replace(scheme, normaliser=replace(by, pair=pair))
        return replace(self, scheme=scheme, points=self.points[:, kept])


def name_pack(
    pack: Path,
    core: Path | None,
    annotations: Path,
    output: Path,
    ridge: float | None = None,
    force: bool = False,
    layout: str | None = None,
    normaliser: str | None = None,
    learning: Learning | None = None,
) -> tuple[dict[str, Any], NamedCrops]:
    """Write to `output` the pack that finds the points of `annotations` instead of its landmarks.

    annotations: a file or folder of any layout with points, recognised unless given, of 5 images or
    more; `read_annotated` says how they are cropped. ridge: see `point_fit.fit`. normaliser: see
    `normalised_by`. learning: with it the network learns the points, see `point_maps`, and `learnt`
    of the report names those that got maps of their own; none if what was learnt is no nearer, when
    left out, than the landmarks alone. Points that are told no better than by the mean shape are
    left out, and named in `left_out` of the report.
    Returns what `judge` reports, which the new pack keeps as `naming` in its header, with
    `from_sha256`, that of `pack`; and what was read. The landmarks are kept behind the points, for
    following. Raises UserError, and writes nothing, when the landmarks carry no information about
    the points, for too few images, for a table or pack that is wrong, or an output that exists
    (unless `force`) or that another run is writing.
    """
    with Owned(output):
        check_output(output, force)
        header = read_header(pack)
        if "naming" in header:
            raise UserError(
                f"{pack}: got a pack whose points are named already, expected the one it was made "
                "from; name that one"
            )
        model, header = load_pack(pack, core)
        finding = Finding.from_json(header.get("finding"))
        scale = header["crop_scale"]
        size = model.config.input_size
        seen = read_annotated(annotations, size, scale, finding, layout, learning is not None)
        seen = replace(seen, scheme=normalised_by(seen.scheme, normaliser))
        own = tuple(f"_{name}" for name in header["landmark_names"])  # followed, not shown
        if taken := [name for name in seen.scheme.names if name in own]:
            raise UserError(
                f"{annotations}: got a point called '{taken[0]}', expected other names than those "
                "that the pack keeps its own landmarks under; rename it"
            )
        by_landmarks = _by_landmarks(model, seen, ridge)
        named, report = by_landmarks, judge(by_landmarks.left_out, seen, scale)
        if learning is not None:
            learnt = _learnt(model, seen, turning_as(learning, header), ridge)
            report_learnt = judge(learnt.left_out, seen, scale)
            ways = report_learnt["error_px"], report["error_px"]
            say = f"learnt: {ways[0]:.2f} px when left out, by the landmarks alone {ways[1]:.2f}"
            better = learnt.maps and ways[0] < CLEARLY * ways[1] and is_informative(report_learnt)
            if better or (learnt.maps and not is_informative(report)):
                named, report = learnt, report_learnt
            else:
                say += "; the landmarks it is"
            console().print(say)
        check_informative(report, str(annotations), learning is not None)
        empty = [name for name in seen.scheme.names if name not in _told(report)]
        if empty:
            rows = [n for n, name in enumerate(seen.scheme.names) if name not in empty]
            seen = seen.without(empty)
            named = (
                _by_landmarks(model, seen, ridge)
                if named is by_landmarks
                else named.of_points(rows)
            )
            report = judge(named.left_out, seen, scale) | {"left_out": empty}
        fitted, model, names = named.fit, named.model, seen.scheme.names
        made_of = torch.from_numpy(fitted.weight), torch.from_numpy(fitted.offset)
        model.naming = NamingLayer.keeping(*made_of, len(own))
        if learning:
            report |= {"learnt": [names[n] for n in named.maps]}
        report = {
            "from_sha256": header["sha256"],
            "annotations": annotations.name,
            "ridge": fitted.ridge,
            **report,
        }
        changed = (*_MADE_ANEW, "teacher") if named.maps else _MADE_ANEW
        kept = {name: value for name, value in header.items() if name not in changed}
        kept |= {
            "landmark_names": (*names, *own),
            "following": len(own),
            "naming": report,
        }
        save_pack(output, model, kept)
    return report, seen


def read_annotated(
    source: Path,
    size: int,
    crop_scale: float,
    finding: Finding | None = None,
    layout: str | None = None,
    context: bool = False,
) -> NamedCrops:
    """Read the images that `source` annotates and crop each to `size` as detection will.

    That is about the box that the annotation gives, times `crop_scale`. Without one, and where the
    pack was learnt from objects that were found (`finding`) in films, it is the box of `lmk find`
    in runs/, of a frame of such a film, else the annotated points and the margin; else the whole
    image. Raises UserError for an image that cannot be read, is rotated by EXIF (annotated
    pixels are those stored, detection sees the image upright), or is listed twice, for a name that
    is none, a point far outside its image, and for fewer than 5 images, or of a point.
    """
    data = open_dataset(str(source), layout) if source.exists() else open_table(source)
    _check_table(data, source)
    root = source if source.is_dir() else source.parent
    around, crops, points, scales = [], [], [], []
    for sample in data.samples:
        _check_upright(root / sample.name)
        image = sample.read()
        _check_inside(sample, whole(image), data.landmark_names, source)
        square = square_around(_box(sample, finding) or whole(image), crop_scale)
        crops.append(crop(image, square, size))
        if context:
            wide = square_around(square, CONTEXT)
            around.append(crop(image, wide, round(size * CONTEXT / 2) * 2))
        points.append(to_crop(sample.points, square, size))
        scales.append(square[2] / size)
    return NamedCrops(
        data.scheme,
        np.stack(crops),
        np.stack(points),
        tuple(sample.name for sample in data.samples),
        np.stack(around) if context else None,
        np.array(scales, np.float32),
    )


def _box(sample: Sample, finding: Finding | None) -> Box | None:
    """The object's, as detection will have it; None for the whole image."""
    there = sample.points[np.isfinite(sample.points).all(axis=1)]
    if sample.box is not None or finding is None or finding.way == "full" or not len(there):
        return sample.box
    x, y = (float(each) for each in (there.min(axis=0) + there.max(axis=0)) / 2 + 0.5)
    about = [
        b for b in _found_boxes(sample.name) if b[0] < x < b[0] + b[2] and b[1] < y < b[1] + b[3]
    ]
    if about:
        return min(about, key=lambda b: math.hypot(b[0] + b[2] / 2 - x, b[1] + b[3] / 2 - y))
    side = finding.margin * float(max(np.ptp(there, axis=0).max(), 1.0))
    return x - side / 2, y - side / 2, side, side


def _found_boxes(name: str) -> list[Box]:
    """Those that `lmk find` has left for a frame: "film.mp4#123" or "…/film/img0123.png"."""
    frame = _FRAME.search(name)
    film, number = (Path(frame.group(1)), int(frame.group(2))) if frame else (Path(name), 0)
    boxes = workspace.RUNS / f"{film.stem}-boxes.csv"
    if frame is None or not boxes.is_file():
        return []
    nothing, region = np.zeros((1, 1, 3), np.uint8), read_boxes(boxes)  # the number alone matters
    titles = [film.name] if film.suffix else [film.name + suffix for suffix in VIDEO_SUFFIXES]
    frames = [Frame(title, number, 0.0, nothing) for title in titles]
    return [target.box for each in frames for target in region.targets(each)]


def _by_landmarks(model: LandmarkNetwork, seen: NamedCrops, ridge: float | None) -> Learnt:
    """The points by the landmarks that `model` finds."""
    found = find_all(model, seen.crops)
    left_out = leave_one_out(found, seen.points, ridge)
    return Learnt(model, fit(found, seen.points, ridge), left_out, model.config.num_landmarks)


def _learnt(
    model: LandmarkNetwork, seen: NamedCrops, learning: Learning, ridge: float | None
) -> Learnt:
    """The points as a copy of `model` learns them from the images that have some."""
    assert seen.around is not None
    there = np.asarray(np.isfinite(seen.points).all(axis=2))
    rows = np.flatnonzero(there.any(axis=1))
    parts = left_out_parts([seen.frames[row] for row in rows])
    for part in parts:
        others = np.delete(there[rows], part, axis=0).sum(axis=0)
        least = int(others.argmin())
        if others[least] < 2:
            raise UserError(
                f"--learn: got '{seen.scheme.names[least]}' in {others[least]} images besides "
                f"those from {seen.frames[rows[part[0]]]} to {seen.frames[rows[part[-1]]]}, which "
                "are left out together, expected 2 or more; annotate it in others too, remove its "
                "columns, or name without --learn"
            )
    some = seen.crops[rows], seen.around[rows], seen.points[rows]
    learnt = learn_maps(model, *some, parts, learning, ridge)
    left_out = np.full(seen.points.shape, np.nan)
    left_out[rows] = learnt.left_out
    return replace(learnt, left_out=left_out)


def turning_as(learning: Learning, header: Mapping[str, Any]) -> Learning:
    """With views that turn as those that the pack was learnt from; of a student, its teacher."""
    rotation = header.get("teacher", header.get("config", {})).get("rotation")
    if learning.rotation is not None or rotation is None:
        return learning
    return replace(learning, rotation=rotation)


def _told(report: Mapping[str, Any]) -> set[str]:
    """The points that are told better than by the mean shape."""
    rows = report["points"]
    return {row["name"] for row in rows if row["error_px"] < row["mean_shape_px"]}


def judge(said: Doubles, seen: NamedCrops, crop_scale: float = 1.0) -> dict[str, Any]:
    """How far points are off in images that were left out, ready for JSON.

    said (N,M,2): of each image of `seen`, by what was made of others. Errors are mean distances,
    `error_` of that and `mean_shape_` of saying the mean of the other images: _px of the crop,
    _photo_px of the image as it is, _box_percent of the side of the object's box, and _percent of
    `normaliser`, where the names say so. So for all points, and in `points` for each one.
    `better_images`: in how many the fit is nearer; `chance`: the p-value of that, by Wilcoxon's
    signed-rank test over images, one-sided.
    """
    from scipy.stats import wilcoxon

    points, normaliser = seen.points, seen.scheme.normaliser
    away = {
        "error": np.linalg.norm(said - points, axis=2),
        "mean_shape": np.linalg.norm(mean_shape(points) - points, axis=2),
    }  # (N,M)
    units = {"px": 1.0, "box_percent": 100 * crop_scale / seen.crops.shape[1]}
    scales = {unit: np.full(len(points), value) for unit, value in units.items()}
    if seen.photo_px is not None:
        scales["photo_px"] = seen.photo_px
    if normaliser.pair is not None:
        scales["percent"] = 100 / normaliser.lengths(points)
    names = [f"{which}_{unit}" for unit in scales for which in away]
    errors = [away[which] * scale[:, None] for scale in scales.values() for which in away]
    rows = [
        {"name": name, "images": int(np.isfinite(points[:, index, 0]).sum())}
        | {key: _mean(error[:, index]) for key, error in zip(names, errors, strict=True)}
        for index, name in enumerate(seen.scheme.names)
    ]
    annotated = np.isfinite(points).all(axis=2).sum(axis=1) > 0
    gain = np.nanmean((away["mean_shape"] - away["error"])[annotated], axis=1)
    return {
        "images": int(annotated.sum()),
        "normaliser": normaliser.label if normaliser.pair is not None else None,
        **{key: _mean(error) for key, error in zip(names, errors, strict=True)},
        "better_images": int((gain > 0).sum()),
        "chance": float(wilcoxon(gain, alternative="greater").pvalue) if gain.any() else 1.0,
        "points": rows,
    }


def is_informative(report: Mapping[str, Any]) -> bool:
    """Whether what `judge` reports is clearly better than chance.

    Clearly is: on average at most 0.8 of the error of the mean shape, and image by image nearer so
    consistently that chance does it once in 10 times; of 5 images only the one in which it matters
    least, or the second, may be an exception.
    """
    good = report["error_px"] <= BETTER * report["mean_shape_px"]
    return bool(good and report["chance"] <= CHANCE)


def check_informative(report: Mapping[str, Any], source: str, learning: bool = False) -> None:
    """Raise UserError, about `source`, unless it `is_informative`; with `learning` too."""
    if is_informative(report):
        return
    who = "neither the landmarks nor maps of their own" if learning else "the landmarks do not"
    cure = "" if learning else "let them be learnt (--learn 5m), "
    raise UserError(
        f"{source}: got points {report['error_px']:.1f} px off when left out, "
        f"{report['mean_shape_px']:.1f} px off by their mean shape (nearer in "
        f"{report['better_images']} of {report['images']} images), expected clearly less: {who} "
        f"tell where they are; {cure}annotate more images, check the annotation and its boxes, or "
        "name the points of another pack"
    )


def _mean(errors: NDArray[np.floating]) -> float | None:
    seen = errors[np.isfinite(errors)]
    return float(seen.mean()) if seen.size else None


def _check_table(data: Dataset, table: Path) -> None:
    """Raise UserError unless names, images and counts are right."""
    if not data.landmark_names:
        raise UserError(f"{table}: got no NAME_x and NAME_y columns, expected those of the points")
    for name in data.landmark_names:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{table}: got the point name '{name}', expected letters, digits, '_', '-', '.' "
                "or spaces within; rename its columns"
            )
    once: set[object] = set()
    for sample in data.samples:
        if (sample.name, sample.box) in once:
            raise UserError(
                f"{table}: got {sample.name} twice, expected other images or boxes; remove a row"
            )
        once.add((sample.name, sample.box))
    _check_counts(data.samples, data.landmark_names, table)


def _check_counts(samples: tuple[Sample, ...], names: tuple[str, ...], table: Path) -> None:
    present = np.isfinite([sample.points for sample in samples]).all(axis=2)  # (N,M)
    if (images := int((present.sum(axis=1) > 0).sum())) < FEWEST:
        raise UserError(
            f"{table}: got {images} images with points, expected {FEWEST} or more; annotate more, "
            "10 are better"
        )
    for name, count in zip(names, present.sum(axis=0), strict=True):
        if count < FEWEST:
            raise UserError(
                f"{table}: got '{name}' in {count} images, expected {FEWEST} or more; annotate it "
                "in more, or remove its columns"
            )


def _check_inside(sample: Sample, whole: Box, names: tuple[str, ...], table: Path) -> None:
    """Raise UserError for a point far outside its image: most likely of another resolution."""
    beyond = _MARGIN * max(whole[2:])
    outside = (sample.points < -beyond) | (sample.points > np.array(whole[2:]) + beyond)
    if outside.any():
        name = names[int(np.flatnonzero(outside.any(axis=1))[0])]
        x, y = sample.points[names.index(name)]
        raise UserError(
            f"{table}: got '{name}' at {x:.4g}, {y:.4g} in {sample.name} of {whole[2]:.0f}×"
            f"{whole[3]:.0f} pixels, expected it inside; annotate the image as it is stored"
        )


def _check_upright(path: Path) -> None:
    """Raise UserError for an image that EXIF rotates; what cannot be read is told by its reader."""
    try:
        with open_image(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
    except Exception:  # Pillow's plug-ins raise almost anything on corrupt bytes
        return
    if turned:
        raise UserError(
            f"{path}: got an image that EXIF rotates, expected one stored upright; save it so and "
            "annotate that"
        )
