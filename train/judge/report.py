"""Pack and unlabelled images -> one page that says which landmarks to trust."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.files import write_bytes
from lmk.runtime.model import STRIDE
from lmk.runtime.outputs import colour
from lmk.train.config import EvaluateConfig
from lmk.train.datasets import DecodedSet, PointArray
from lmk.train.device import to_float
from lmk.train.judge import steadiness
from lmk.train.judge.consistency import TURNS, Views, prepared, turned, views
from lmk.train.judge.evaluation import REACH, may_have_learnt, spread_over
from lmk.train.judge.real_motion import moving_errors, neighbours
from lmk.train.judge.steadiness import Landmark, Steadiness
from lmk.train.network import LandmarkNetwork, find_given, versions
from lmk.train.split import Indices, split_indices

GALLERY = 8  # images of each third: the worst, the middling, the best
_JPEG_QUALITY = 85
_BLUR = 0.016  # of the crop's side: standard deviation of the dots that the maps are made of
_PARTS = ("images", "found", "expected")
_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class MarkedPicture:
    """A picture with landmarks over it, in pixels of the crop, edges (as SVG has them)."""

    uri: str
    alt: str
    caption: str = ""
    found: tuple[tuple[float, float], ...] = ()
    expected: tuple[tuple[float, float], ...] = ()  # where they should have been, if known


def write_report(
    path: Path,
    model: LandmarkNetwork,
    header: Mapping[str, Any],
    data: DecodedSet,
    config: EvaluateConfig,
    num_views: int = 4,
    keep: Callable[[Views, Steadiness, list[str]], None] = lambda seen, judged, names: None,
) -> Steadiness:
    """Write the HTML page of a pack, with all its pictures inside, and return what it says.

    `header` is the pack's. Of the data that the pack was adapted to only the images that were held
    out are looked at, of others all, at most `config.images` of them, spread over the set, each as
    it is and under `num_views` transforms. `keep` is called with what was seen, what is said of it,
    and the images' names. Raises UserError for a device that is not there, and as `write_bytes`.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    chosen, which = choose_images(data, header, config.images)
    seen = views(model, data, chosen, config, num_views)
    names = tuple(header["landmark_names"][: seen.found.shape[2]])
    quarters = turned(model, data, chosen, config)
    moving = None
    if data.films:
        pairs = neighbours([data.films[i] for i in chosen])
        moving = moving_errors(seen.images[0], seen.found[0], pairs)
    judged = steadiness.measure(
        seen,
        quarters,
        _scores(model, seen.images[0], config),
        names,
        moving,
        _beside(data, chosen, seen),
        header.get("course") if data.name == header["data"] else None,
        _covered(data, chosen, seen),
    )
    keep(seen, judged, [data.names[i] for i in chosen])
    page = _template(judged.size).render(
        category=header["category"],
        judged=judged,
        colours=["#{:02x}{:02x}{:02x}".format(*colour(k)) for k in range(len(names))],
        key=_key(seen, judged),
        maps=_maps(seen, judged),
        transformed=_transformed(seen, quarters, judged, [data.names[i] for i in chosen]),
        gallery=_gallery(seen, judged, [data.names[i] for i in chosen]),
        reasons=[_reason(landmark, judged.size) for landmark in judged.landmarks],
        config=config,
        rule=steadiness,
        reach=REACH,
        facts=_facts(header, data, judged),
        data=data.name,
        which=which,
    )
    write_bytes(path, page.encode())
    return judged


def _template(size: int) -> jinja2.Template:
    """The page, for crops of `size` pixels."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"px": _px, "percent": lambda px: _percent(px / size), "share": _percent}
    return environment.get_template("report.html.jinja")


def choose_images(
    data: DecodedSet, header: Mapping[str, Any], most: int | None
) -> tuple[Indices, str]:
    """Indices of images to look at, at most so many, and what they are.

    Those that the pack was not adapted to, if there are. `header` is the pack's.
    """
    everything = np.arange(len(data.names))
    if data.name != header["data"]:
        return spread_over(everything, most), ""
    held_out = split_indices(data.splits, header["config"]["seed"])[1]
    if not len(held_out):  # a lone image: adaptation has nothing else to look at either
        return everything, "that it was adapted to"
    if may_have_learnt(data, header):
        which = "some of which it was adapted to, unless it is another set of that name"
        return spread_over(held_out, most), which
    return spread_over(held_out, most), "that were held out"


def _beside(data: DecodedSet, chosen: Indices, seen: Views) -> NDArray[np.bool_] | None:
    """Which landmarks (N,K) lie more than a cell from the object, of images where that is known."""
    known = data.known[chosen]
    if data.away is None or not known.any():
        return None
    size, margin = seen.images.shape[2], (data.images.shape[1] - seen.images.shape[2]) // 2
    places = seen.found[0][known].round().clip(0, size - 1).astype(int)
    columns, rows = places.transpose(2, 0, 1) + margin
    return np.asarray(data.away[chosen[known][:, None], rows, columns] > STRIDE)


def _covered(data: DecodedSet, chosen: Indices, seen: Views) -> float:
    """How much of the object the landmarks of the images as they are speak for, where known."""
    if data.away is None:
        return math.nan
    size = seen.images.shape[2]
    margin = (data.images.shape[1] - size) // 2
    known, middle = data.known[chosen], slice(margin, margin + size)
    objects = data.away[chosen[known], middle, middle] == 0
    return steadiness.coverage(seen.found[0][known], objects)


@torch.inference_mode()
def _scores(model: LandmarkNetwork, images: _Pixels, config: EvaluateConfig) -> PointArray:
    """Scores (N,K) of the landmarks in crops (N,S,S,3)."""
    ready = prepared(model, config)
    device, pixels = next(ready.parameters()).device, torch.from_numpy(images)
    found = []
    for part in torch.arange(len(images)).split(config.batch):
        found.append(find_given(ready, to_float(pixels, part, device))[1].cpu().numpy())
    return np.concatenate(found)


def _uri(image: _Pixels) -> str:
    """HWC uint8 RGB -> a JPEG inside an address."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _over(points: PointArray) -> tuple[tuple[float, float], ...]:
    """Pixel centres (K,2) -> edges, as SVG has them."""
    return tuple((round(float(x) + 0.5, 2), round(float(y) + 0.5, 2)) for x, y in points)


def _ranked(judged: Steadiness) -> Indices:
    """Images from worst to best; those in which nothing could be measured are first."""
    return np.argsort(judged.errors_px, kind="stable")[::-1]


def _key(seen: Views, judged: Steadiness) -> MarkedPicture:
    """The median image, on which the landmarks are named."""
    order = _ranked(judged)
    median = order[len(order) // 2]
    names = ", ".join(landmark.name for landmark in judged.landmarks)
    alt = f"The image they are found in middling well, with the landmarks {names}"
    return MarkedPicture(_uri(seen.images[0, median]), alt, found=_over(seen.found[0, median]))


def _maps(seen: Views, judged: Steadiness) -> list[MarkedPicture]:
    """For each landmark where it lands: in its colour over the pale mean of all crops."""
    mean = seen.images[0].mean(axis=(0, 3))[..., None]  # grey: the colour is the map
    mean = 40 + 130 * (mean - mean.min()) / max(float(np.ptp(mean)), 1)
    steps, blur = np.arange(judged.size), _BLUR * judged.size
    pictures = []
    for landmark in judged.landmarks:
        points = seen.found[0, :, landmark.index]
        across, down = (np.exp(-(((steps - points[:, [a]]) / blur) ** 2) / 2) for a in (0, 1))
        density = np.sqrt(down.T @ across)  # the root shows the rare places too
        share = (density / max(density.max(), 1e-12))[..., None]
        blend = mean * (1 - share) + np.array(colour(landmark.index)) * share
        alt = f"Where {landmark.name} lands, over the mean of {judged.images} images"
        pictures.append(MarkedPicture(_uri(blend.round().astype(np.uint8)), alt))
    return pictures


def _transformed(
    seen: Views, quarters: Views, judged: Steadiness, names: list[str]
) -> list[list[MarkedPicture]]:
    """The worst, the median and the best image, each as it is, transformed and turned."""
    order = _ranked(judged)
    kinds = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    both = Views(
        *(np.concatenate((getattr(seen, part), getattr(quarters, part)[1:])) for part in _PARTS)
    )
    errors = both.errors
    changes = ["as it is", *(f"transform {n}" for n in range(1, judged.views + 1))]
    changes += [f"turned by {angle}°" for angle in TURNS]
    rows: dict[int, list[MarkedPicture]] = {}
    for kind, image in kinds.items():
        if image in rows:  # there are fewer than three
            continue
        rows[image] = [
            MarkedPicture(
                uri=_uri(both.images[view, image]),
                alt=f"{names[image]}, {change}",
                caption=f"off by {_px(_mean(errors[view, image]))}" if view else f"{kind} image",
                found=_over(both.found[view, image]),
                expected=_over(both.expected[view, image]) if view else (),
            )
            for view, change in enumerate(changes)
        ]
    return list(rows.values())


def _gallery(seen: Views, judged: Steadiness, names: list[str]) -> dict[str, list[MarkedPicture]]:
    """Images with their landmarks, from worst to best: all, or some of each third."""
    order = _ranked(judged)
    total, middle = len(order), (len(order) - GALLERY) // 2
    parts = {"Worst": slice(GALLERY), "Middling": slice(middle, middle + GALLERY)}
    parts["Best"] = slice(total - GALLERY, total)
    if total <= 3 * GALLERY:
        parts = {f"All {total}, from worst to best": slice(total)}
    return {
        title: [
            MarkedPicture(
                uri=_uri(seen.images[0, image]),
                alt=f"{names[image]} with its landmarks",
                caption=f"{rank + 1}: {_px(judged.errors_px[image])}",
                found=_over(seen.found[0, image]),
            )
            for rank, image in list(enumerate(order))[part]
        ]
        for title, part in parts.items()
    }


def _mean(errors: PointArray) -> float:
    seen = errors[np.isfinite(errors)]
    return float(seen.mean()) if len(seen) else math.nan


def _px(length: float) -> str:
    return f"{length:.1f}\N{NO-BREAK SPACE}px" if math.isfinite(length) else "out of sight"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%" if math.isfinite(share) else "–"


def _reason(landmark: Landmark, size: int) -> str:
    """Why a landmark has its verdict, or what else to know of it, in plain words."""
    follows, p90 = landmark.follows, landmark.p90_px / size
    if landmark.same_as is not None:
        return f"Sits on {landmark.same_as}, which is steadier: it says nothing new."
    if math.isnan(follows):
        return "Sits at the edge of the crop and leaves it under every transform."
    if landmark.verdict == "stuck":
        return (
            f"Does not follow the image: it moves {max(follows, 0):.0%} as far as it should. "
            "It marks a place in the crop, not a part of the object."
        )
    if landmark.verdict == "background":
        return (
            f"In {landmark.off_object:.0%} of the images it is beside the object: it marks "
            "something else, however steadily."
        )
    if landmark.useless:
        return "Jumps about: it moves, but not with the image."
    if p90 > steadiness.STEADY_P90:
        return f"Slips: in one view of ten it is off by more than {_percent(p90)} of the crop."
    if landmark.score < steadiness.STEADY_SCORE:
        return (
            f"Blurred: its score is {landmark.score:.2f}. Most of its heat-map lies elsewhere, "
            "spread or in a second place; where it is found is a compromise."
        )
    if landmark.moving_px > steadiness.TURNS_MEDIAN * size:
        return (
            "Slides: from frame to frame it is typically "
            f"{_px(landmark.moving_px)} from where the picture under it has gone."
        )
    if landmark.verdict == "wobbly":
        median = _percent(landmark.median_px / size)
        return f"Trembles: it is typically off by {median} of the crop."
    if landmark.spread_px < steadiness.STEADY_MEDIAN * size:
        return (
            "Follows every transform, yet is at the same place in nearly every image: right where "
            "the images are aligned to the object; otherwise it may mark the picture's frame."
        )
    if not landmark.turns:
        return (
            "Follows small transforms, but not turns of 90° and 180°: there it is typically off by "
            f"{_px(landmark.turned_px)}."
        )
    return "Follows every transform and turns with the object."


def _facts(header: Mapping[str, Any], data: DecodedSet, judged: Steadiness) -> dict[str, str]:
    """What the figures are of; packs of earlier versions may lack some of it."""
    unfinished = "" if header.get("finished", True) else ", stopped before its end"
    made = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    now = ", ".join(f"{n} {v}" for n, v in versions("lmk-toolkit", "torch").items())
    return {
        "Images looked at": f"{judged.images} of {data.name}, each under {judged.views} transforms",
        "Adapted to": f"{header['data']}, {header['images']:,} images",
        "Method": header["method"],
        "Steps": f"{header['step']:,} in {header['seconds']:,.0f} seconds{unfinished}",
        "Crop": f"{judged.size} × {judged.size} pixels",
        "Core (sha256)": header["core_sha256"] or "none",
        "Pack (sha256)": header["sha256"],
        "Made with": made,
        "This page by": now,
    }
