"""A film -> the frames of it that are worth looking at: spread over time and over appearance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.detection import Frame

T = TypeVar("T")
_SMALL = (32, 24)  # width, height of the pictures that are compared
_GROUP = 8  # frames that are chosen from one stretch of time
_CANDIDATES = 5  # times the budget: so many frames are chosen from
_SAME = 1.0  # grey levels, root mean square over a small picture: below it two show the same


def sample(source: Iterable[Frame], count: int, keep: Callable[[Frame], T]) -> list[T]:
    """What `keep` makes of frames spread evenly over the source: `count` to 2·`count` of them.

    All when it has fewer than twice that many. The source is read once, to its end; how long it
    says it is does not matter, and no more than 2·`count` are held.
    """
    kept: list[T] = []
    every = 1
    for number, frame in enumerate(source):
        if number % every == 0:
            kept.append(keep(frame))
        if len(kept) == 2 * count:
            kept, every = kept[::2], 2 * every
    return kept


def small(frame: Frame) -> NDArray[np.uint8]:
    """What tells frames apart: the picture in grey, 32×24 and flat, (768,) uint8."""
    image = Image.fromarray(frame.image)
    grey = image.resize(_SMALL, Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    return np.asarray(grey).reshape(-1)


def choose_frames(
    source: Iterable[Frame], budget: int, look: Callable[[Frame], NDArray[np.uint8]] = small
) -> list[int]:
    """The numbers of at most `budget` frames, ascending; the same whenever they are chosen.

    Spread as by `choose`, for which the source is read once, to its end. look: what is compared.
    """
    candidates = sample(source, _CANDIDATES * budget, lambda frame: (frame.index, look(frame)))
    if not candidates:
        return []
    chosen = choose(np.stack([picture for _, picture in candidates]), budget)
    return [candidates[place][0] for place in chosen]


def choose(pictures: NDArray[np.uint8], budget: int) -> list[int]:
    """Which of the pictures (N,D), grey levels and in order of time, to take: places, ascending.

    At most `budget`. Each stretch of time gives as many as any other, of them those nearest to
    the centres of its k-means clusters; what looks as one taken before is left out. Nothing is
    drawn by chance.
    """
    budget = min(budget, len(pictures))
    num_groups = -(-budget // _GROUP)
    taken: list[int] = []
    for group in range(num_groups):
        first, end = (len(pictures) * edge // num_groups for edge in (group, group + 1))
        share = budget * (group + 1) // num_groups - budget * group // num_groups
        stretch = pictures[first:end].astype(np.float32)
        before = pictures[taken].astype(np.float32)
        for place in _medoids(stretch, share):
            if _differences(before, stretch[place]).min(initial=np.inf) >= _SAME:
                taken.append(first + place)
    return taken


def _medoids(pictures: NDArray[np.float32], count: int) -> list[int]:
    """The pictures nearest to the centres of at most `count` clusters, ascending."""
    from scipy.cluster.vq import kmeans2, vq

    # The first centres: the picture nearest to the mean, then always the one furthest from all.
    seeds = [int(_differences(pictures, pictures.mean(axis=0)).argmin())]
    nearest = _differences(pictures, pictures[seeds[0]])
    while len(seeds) < count and nearest.max() >= _SAME:
        seeds.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _differences(pictures, pictures[seeds[-1]]))
    centres, _ = kmeans2(pictures, pictures[seeds], iter=10, minit="matrix", missing="raise")
    return sorted({int(place) for place in vq(centres, pictures)[0]})


def _differences(pictures: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square (N,) of (N,D) - (D,)."""
    return np.sqrt(((pictures - one) ** 2).mean(axis=1))
