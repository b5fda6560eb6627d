"""The whole chain on built-in categories: core, adaptation, export, detection, and its error."""

from __future__ import annotations

import csv
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lmk.export.graph import export_pack
from lmk.runtime.detect.report import print_summary
from lmk.runtime.detection import Frame
from lmk.runtime.files import atomic_path, check_output
from lmk.runtime.images import to_crop, to_frame
from lmk.runtime.landmarker import load
from lmk.runtime.outputs import make_sinks
from lmk.runtime.pipeline import detect
from lmk.runtime.regions import parse_roi
from lmk.runtime.sources import open_source
from lmk.runtime.terminal import console, progress
from lmk.train.adapting import adapt
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.core import train_core
from lmk.train.datasets import DecodedSet, decode
from lmk.train.datasets.drawn import builtin, clip
from lmk.train.judge import LinearRegressor, find_landmarks
from lmk.train.network import load_pack

CORE, CATEGORY = "puppet", "butterfly"
IMAGES = 1200
INPUT_SIZE = 128
LANDMARKS = 10
ROI = "center"
CORE_SHARE = 0.3  # of the training time
CLIP_FRAMES, CLIP_RATE, CLIP_SIZE = 150, 25, (240, 320)


def demo(folder: Path, minutes: float, force: bool) -> None:
    """Learn from puppets, adapt to butterflies without labels, find them in a drawn video.

    Everything is written to `folder`; training takes `minutes` in all. Ends by printing the files
    and the error against the points that the drawings are known to have.
    """
    with tempfile.TemporaryDirectory() as cache:
        _demo(folder, minutes, force, Path(cache))


def _demo(folder: Path, minutes: float, force: bool, cache: Path) -> None:
    screen = console()
    check_output(folder / f"{CATEGORY}.safetensors", force)
    core, pack = folder / "core.safetensors", folder / f"{CATEGORY}.safetensors"

    screen.print(f"1/4  core: supervised, on drawn images of a {CORE}")
    train_core(
        CoreConfig(output=core, width="small", input_size=INPUT_SIZE, minutes=minutes * CORE_SHARE),
        _decoded(CORE, cache),
    )
    screen.print(f"2/4  adaptation: drawn images of a {CATEGORY}, no labels used")
    data = _decoded(CATEGORY, cache)
    adapt(
        AdaptConfig(
            output=pack, core=core, landmarks=LANDMARKS, minutes=minutes * (1 - CORE_SHARE)
        ),
        data,
    )
    screen.print("3/4  export: W folded into the weights, checked against the network")
    model_path = folder / f"{CATEGORY}.onnx"
    crops = data.central_crops(16, INPUT_SIZE)
    contract = export_pack(pack, core, model_path, crops, force=True)
    screen.print(f"     eager = ONNX Runtime within {contract.drift['max_px']:.1e} px")

    screen.print("4/4  detection: a drawn video")
    video = folder / f"{CATEGORY}.mp4"
    truth = write_clip(video)
    with open_source(video) as frames, load(model_path) as landmarker:
        sinks, files = make_sinks(frames, folder, landmarker.names, ["csv", "overlay"], True)
        print_summary(detect(frames, landmarker, parse_roi(ROI), sinks))
    error, baseline = _error(data, pack, core, files[0], truth)
    screen.print(
        f"known points, read off the found landmarks by a linear map: {error:.1f} px off in frames "
        f"of {CLIP_SIZE[1]}×{CLIP_SIZE[0]}; without looking (mean shape): {baseline:.1f} px"
    )
    seen = folder / CATEGORY / "preview.png", pack.with_suffix(".html")
    for path in (core, pack, *seen, model_path, video, *files):
        print(path)


def _decoded(category: str, cache: Path) -> DecodedSet:
    with progress(f"drawing {IMAGES} times a {category}") as report:
        return decode(builtin(category, IMAGES), INPUT_SIZE, "image", cache, report)


def write_clip(path: Path) -> NDArray[np.float32]:
    """Write the drawn video (H.264) and return its points (frames,P,2) in frame pixels."""
    points = []
    height, width = CLIP_SIZE
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(CLIP_RATE))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18"}
        for image, known, _ in clip(CATEGORY, CLIP_FRAMES, seed=1, size=CLIP_SIZE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            points.append(known)
        container.mux(stream.encode())
    return np.stack(points)


def _error(
    data: DecodedSet, pack: Path, core: Path, table: Path, truth: NDArray[np.float32]
) -> tuple[float, float]:
    """Mean distance in frame pixels of regressed and of mean points from the known ones.

    The linear map from found to known points is fitted on the images of adaptation, the video
    being new to it; the mean shape is that of the video itself, its best possible constant.
    """
    model, _ = load_pack(pack, core)
    every = np.arange(len(data.images))
    regressor = LinearRegressor(
        find_landmarks(model, data, every), data.crop_points(every, INPUT_SIZE), ridge=1e-4
    )
    with table.open(newline="") as file:
        names = [f"p{index}_{axis}" for index in range(LANDMARKS) for axis in "xy"]
        cells = [[row[name] for name in names] for row in csv.DictReader(file)]
    found = np.array(cells, np.float32).reshape(-1, LANDMARKS, 2)
    blank = np.broadcast_to(np.uint8(0), (*CLIP_SIZE, 3))
    [target] = parse_roi(ROI).targets(Frame(table.name, 0, 0.0, blank))
    box = target.box
    in_crop = regressor(to_crop(found, box, INPUT_SIZE))
    predicted = to_frame(in_crop, box, INPUT_SIZE)
    error = np.linalg.norm(predicted - truth, axis=2).mean()
    baseline = np.linalg.norm(truth.mean(axis=0) - truth, axis=2).mean()
    return float(error), float(baseline)
