"""A model whose answer is known, and images and videos in which it has something to find.

The model's landmarks are the brightness-weighted centroids of the three channels of its 64-pixel
crop, its scores their mean brightness: they depend on every pixel and can be computed by hand.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lmk
from lmk.runtime.contract import INPUT, LANDMARKS, SCORES, Contract

SIDE = 64
NAMES = ("red", "green", "blue")


def _contract(**changes) -> Contract:
    values = dict(
        category="blob",
        num_landmarks=3,
        input_size=SIDE,
        precision="fp32",
        core_sha256="c" * 64,
        pack_sha256="p" * 64,
        landmark_names=NAMES,
    )
    return Contract(**(values | changes))


def _constants() -> list[onnx.TensorProto]:
    ramp = np.arange(SIDE, dtype=np.float32)
    return [
        numpy_helper.from_array(ramp.reshape(1, 1, SIDE, 1), "columns"),
        numpy_helper.from_array(ramp.reshape(1, SIDE, 1, 1), "rows"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "plane"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.float32(1e-6), "tiny"),
        numpy_helper.from_array(np.float32(255 * SIDE * SIDE), "full"),
    ]


def _centroid(ramp: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Mul", ["pixels", ramp], [f"{ramp}_weighed"]),
        helper.make_node("ReduceSum", [f"{ramp}_weighed", "plane"], [f"{ramp}_sum"], keepdims=0),
        helper.make_node("Div", [f"{ramp}_sum", "mass"], [f"{ramp}_mean"]),
        helper.make_node("Unsqueeze", [f"{ramp}_mean", "last"], [f"{ramp}_point"]),
    ]


def _centroid_model(metadata: dict[str, str]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["pixels", "plane"], ["brightness"], keepdims=0),
        helper.make_node("Add", ["brightness", "tiny"], ["mass"]),
        *_centroid("columns"),
        *_centroid("rows"),
        helper.make_node("Concat", ["columns_point", "rows_point"], [LANDMARKS], axis=2),
        helper.make_node("Div", ["brightness", "full"], [SCORES]),
    ]
    graph = helper.make_graph(
        nodes,
        "centroids",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["B", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info(LANDMARKS, TensorProto.FLOAT, ["B", 3, 2]),
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["B", 3]),
        ],
        _constants(),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata)
    return model


@pytest.fixture(scope="session")
def make_model(tmp_path_factory):
    """Write the centroid model; `metadata=None` for that of the contract with `changes`."""

    def make(metadata: dict[str, str] | None = None, **changes) -> Path:
        path = tmp_path_factory.mktemp("model") / "blob.onnx"
        if metadata is None:
            metadata = _contract(**changes).to_metadata()
        onnx.save(_centroid_model(metadata), path)
        return path

    return make


@pytest.fixture(scope="session")
def model_path(make_model) -> Path:
    return make_model()


@pytest.fixture(scope="session")
def landmarker(model_path):
    with lmk.load(model_path, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def blob_image():
    """Black, with a soft red spot of about 6 pixels at (x, y), pixel-centre convention."""

    def make(height: int, width: int, x: float, y: float) -> np.ndarray:
        rows, columns = np.mgrid[:height, :width]
        spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = np.round(spot)
        return image

    return make


@pytest.fixture(scope="session")
def write_video():
    """Encode HWC uint8 RGB pictures; ticks of 1/1000 s when time stamps are given."""

    def write(
        path: Path,
        pictures: list[np.ndarray],
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        ticks: list[int] | None = None,
        rotation: int = 0,
        options: dict[str, str] | None = None,
    ) -> Path:
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pix_fmt
            tick = Fraction(1, 25) if ticks is None else Fraction(1, 1000)
            stream.time_base = stream.codec_context.time_base = tick
            if rotation:
                stream.set_display_rotation(rotation)
            for index, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = (ticks[index] if ticks else index), tick
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def blob_video(tmp_path_factory, blob_image, write_video):
    """24 frames of 80x96 (height x width) in which the spot moves; returns (path, points)."""
    points = [(20 + 2 * index, 30 + index) for index in range(24)]
    path = tmp_path_factory.mktemp("video") / "blob.mp4"
    write_video(path, [blob_image(80, 96, x, y) for x, y in points])
    return path, np.array(points, np.float32)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The shared data, from LMK_DATA or beside the repository."""
    root = os.environ.get("LMK_DATA")
    path = Path(root) if root else Path(__file__).parents[3] / "shared" / "data"
    if not (path / "videos").is_dir():
        pytest.skip(f"no videos under {path} (LMK_DATA)")
    return path
