"""The whole chain on what a program draws: a core, then a film to landmarks, and their error."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lmk.export.discovery import Search, discover
from lmk.runtime.files import atomic_path, check_output
from lmk.runtime.terminal import console, progress
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.core import train_core
from lmk.train.datasets import decode
from lmk.train.datasets.drawn import builtin, walk
from lmk.train.judge import LinearRegressor

CORE, CATEGORY = "puppet", "butterfly"
IMAGES = 1200
INPUT_SIZE = 128
LANDMARKS = 10
CORE_SHARE, FILM_SHARE = 0.3, 0.8  # of the time; that of the film is for all that is done with it
FILM_FRAMES, FILM_RATE, FILM_SIZE = 200, 25, (360, 480)


def demo(folder: Path, minutes: float, force: bool) -> None:
    """Learn from puppets with labels, then find landmarks in a film of a butterfly without any.

    The butterfly is small and turns in every direction. Everything is written to `folder`; training
    takes about `minutes`. Ends by printing the files and the error against the points that the
    drawings are known to have.
    """
    core, film = folder / "core.safetensors", folder / f"{CATEGORY}.mp4"
    for path in (core, film):
        check_output(path, force)
    screen = console()
    screen.print(f"a core: supervised, on drawn images of a {CORE}")
    with tempfile.TemporaryDirectory() as cache:
        with progress(f"drawing {IMAGES} times a {CORE}") as report:
            data = decode(builtin(CORE, IMAGES), INPUT_SIZE, "image", Path(cache), report)
        wide = CoreConfig(output=core, width="small", input_size=INPUT_SIZE)
        train_core(replace(wide, minutes=minutes * CORE_SHARE), data)
    screen.print(f"a film: a {CATEGORY} that flies about; no labels are used from here on")
    truth = write_film(film)
    config = AdaptConfig(
        output=folder / f"{CATEGORY}.safetensors",
        core=core,
        landmarks=LANDMARKS,
        input_size=INPUT_SIZE,
        minutes=minutes * FILM_SHARE,
    )
    made = discover([film], config, Search(), force=True)
    error, baseline = _error(folder / f"{CATEGORY}-landmarks/landmarks.csv", truth)
    screen.print(
        f"known points of the film's second half, read off the landmarks by a linear map of its "
        f"first: {error:.1f} % of the object's size off; without looking (mean shape): "
        f"{baseline:.1f} %"
    )
    for path in (core, film, made.pack, made.onnx, *made.pictures):
        print(path)


def write_film(path: Path) -> NDArray[np.float32]:
    """Write the drawn film (H.264) and return its points (frames,P,2) in frame pixels."""
    points = []
    height, width = FILM_SIZE
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FILM_RATE))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18"}
        for image, known, _ in walk(CATEGORY, FILM_FRAMES, seed=1, size=FILM_SIZE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            points.append(known)
        container.mux(stream.encode())
    return np.stack(points)


def _error(table: Path, truth: NDArray[np.float32]) -> tuple[float, float]:
    """Mean distance of regressed and of mean points from the known ones, in % of their box.

    The mean shape, in the boxes that were found, is that of the second half itself: its best
    possible constant.
    """
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frames = np.array([int(row["frame"]) for row in rows])
    names = [[f"p{i}_x", f"p{i}_y"] for i in range(LANDMARKS)]
    found = np.array([[[row[x], row[y]] for x, y in names] for row in rows], np.float32)
    corner, side = (
        np.array([[row[f"box_{name}"] for name in sides] for row in rows], np.float32)[:, None]
        for sides in (("x", "y"), ("w", "h"))
    )
    found, known = (found - corner) / side, (truth[frames] - corner) / side
    later = frames >= FILM_FRAMES // 2
    regressor = LinearRegressor(found[~later], known[~later], ridge=1e-4)
    length = np.sqrt(np.ptp(known[later], axis=1).prod(axis=1))
    error, baseline = (
        (np.linalg.norm(predicted - known[later], axis=2).mean(axis=1) / length).mean()
        for predicted in (regressor(found[later]), known[later].mean(axis=0))
    )
    return 100 * float(error), 100 * float(baseline)
