"""A model whose answer is known, and images and videos in which it has something to find.

The model's landmarks are the brightness-weighted centroids of the three channels of its 64-pixel
crop, its scores their mean brightness: they depend on every pixel and can be computed by hand.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import lmk
from lmk.runtime.model import probe, wire, workspace
from lmk.runtime.model.contract import INPUT, LANDMARKS, SCORES, Contract
from lmk.runtime.model.template import Template, Weight, compose, template_name
from lmk.runtime.model.weights import digest

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
        path.write_bytes(wire.seal(_centroid_model(metadata).SerializeToString()))
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
        coding: dict[str, str] | None = None,
        mirrored: bool = False,
    ) -> Path:
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream(codec, rate=25, options=coding or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pix_fmt
            tick = Fraction(1, 25) if ticks is None else Fraction(1, 1000)
            stream.time_base = stream.codec_context.time_base = tick
            if rotation or mirrored:
                stream.set_display_rotation(rotation, hflip=mirrored)
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


@pytest.fixture(scope="session")
def press_at():
    """Return a function: a number -> a report of progress that is Ctrl-C once so many are done."""

    def at(count):
        def press(done):
            if done >= count:
                raise KeyboardInterrupt

        return press

    return at


def _load(name: str):
    """A module of its own from a file of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in for the GPU of `TrtRunner`; see fake_cuda.py."""
    device = _load("fake_cuda").FakeCuda()
    monkeypatch.setattr("lmk.runtime.runners.trt.open_device", lambda: device)
    return device


@pytest.fixture
def library(gpu, monkeypatch):
    """A stand-in for the module tensorrt_rtx; see fake_tensorrt.py."""
    module = _load("fake_tensorrt")
    module.cuda = gpu
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


@pytest.fixture(scope="session")
def spots():
    """Objects that a stand-in for a network finds; see spots.py."""
    return _load("spots")


@pytest.fixture(scope="session")
def drawn():
    """Ellipses that move over a floor; see drawn_film.py."""
    return _load("drawn_film")


TOY = {"num_landmarks": 3, "width": 16, "input_size": SIDE}


def _toy_weight(tensor, *shape, **more) -> Weight:
    return Weight(f"network.{tensor}", tensor, shape, "float32", **more)


@pytest.fixture(scope="session")
def toy_template() -> Template:
    """The template of a network of a stem, one block convolution and a head, averaged: (B,3,2)."""
    weights = (
        *(
            _toy_weight(f"conv_first.{part}", *shape, norm="bn_first", epsilon=1e-5)
            for part, shape in (("weight", (4, 3, 1, 1)), ("bias", (4,)))
        ),
        *(
            _toy_weight(f"block1.bn1.{part}", 4, is_norm=True)
            for part in ("weight", "bias", "running_mean", "running_var")
        ),
        _toy_weight("block1.conv1.weight", 4, 4, 3, 3),
        _toy_weight("head.weight", 6, 4, 1, 1),
        _toy_weight("head.bias", 6),
    )
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["image_chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["image_chw", *(w.name for w in weights[:2])], ["stem"]),
        helper.make_node("BatchNormalization", ["stem", *(w.name for w in weights[2:6])], ["x"]),
        helper.make_node("Conv", ["x", weights[6].name], ["y"], pads=[1] * 4),
        helper.make_node("Conv", ["y", *(w.name for w in weights[7:])], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        helper.make_node("Reshape", ["mean", "form"], [LANDMARKS]),
        helper.make_node("ReduceSum", [LANDMARKS, "last"], [SCORES], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["B", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info(LANDMARKS, TensorProto.FLOAT, ["B", 3, 2]),
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["B", 3]),
        ],
        [
            numpy_helper.from_array(np.array([-1, 3, 2], np.int64), "form"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ],
    )
    model = onnx.ModelProto(ir_version=9, opset_import=[helper.make_opsetid("", 18)])
    return Template(
        network=TOY,
        precision="fp32",
        model=(model.SerializeToString(), b""),
        graph=(graph.SerializeToString(), b""),
        weights=weights,
        versions={"onnx": "1"},
    )


@pytest.fixture(scope="session")
def toy_core():
    """Arrays of a core for `toy_template`; as cores do, it has a head of its own."""
    rng = np.random.default_rng(0)
    shapes = {"conv_first.weight": (4, 3, 1, 1), "conv_first.bias": (4,)}
    shapes |= {"block1.conv1.weight": (4, 4, 3, 3), "head.weight": (14, 4, 1, 1), "head.bias": 14}
    return {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}


@pytest.fixture
def toy_pack():
    """Return a function seed -> arrays and header of a pack for `toy_core` (method projection)."""

    def make(seed: int = 1):
        rng = np.random.default_rng(seed)
        shapes = {"conv_first.projection": (4, 4), "block1.conv1.projection": (4, 4)}
        shapes |= {"head.weight": (6, 4, 1, 1), "head.bias": 6}
        pack = {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
        for norm in ("bn_first", "block1.bn1"):
            for part in ("weight", "bias", "running_mean", "running_var"):
                pack[f"{norm}.{part}"] = rng.uniform(0.5, 1.5, 4).astype(np.float32)
        header = {
            "kind": "pack",
            "category": "toys",
            "method": "projection",
            "scope": "all",
            "train_plain_convs": False,
            "crop_scale": 1.25,
            "landmark_names": list(NAMES),
            "network": TOY,
        }
        return pack, header

    return make


@pytest.fixture
def save_arrays():
    """Return a function that writes a file of ours from arrays, and gives their sha256."""

    def save(path: Path, kind: str, arrays, header) -> str:
        header = {**header, "kind": kind, "sha256": digest(arrays)}
        path.parent.mkdir(exist_ok=True)
        save_file(arrays, path, metadata={"lmk": json.dumps(header)})
        return header["sha256"]

    return save


@pytest.fixture
def shipped(tmp_path, monkeypatch, toy_template, toy_core, toy_pack, save_arrays):
    """A zoo of core, template and a function that writes the pack of a seed; runs/ is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "ZOO", tmp_path / "zoo")
    name = template_name(toy_template.network, "fp32")
    save_arrays(workspace.ZOO / name, "template", toy_template.arrays(), toy_template.header())
    core_sha256 = save_arrays(
        workspace.ZOO / "core.safetensors", "core", toy_core, {"network": TOY}
    )

    def write(path=None, seed=1, probed=True, edit=lambda pack: None, **more) -> Path:
        path = path or workspace.ZOO / "toys.safetensors"
        pack, header = toy_pack(seed)
        header |= {"core_sha256": core_sha256, **more}
        if probed:
            model = compose(toy_template, toy_core, pack, header, "pack")
            found = probe.run_onnx(model, probe.probe_crops(SIDE))
            header |= {"probe": probe.record(*found)}
        edit(pack)
        save_arrays(path, "pack", pack, header)
        return path

    return write
