"""Image and box -> landmarks in the frame, and the three lines of the README."""

import io
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import lmk


def test_three_lines(model_path, blob_image):
    detection = lmk.load(model_path)(blob_image(100, 140, 61.0, 42.5))
    assert isinstance(detection, lmk.Detection)
    assert np.abs(detection.points[0] - [61.0, 42.5]).max() < 0.2  # red is landmark 0
    assert detection.points.dtype == detection.scores.dtype == np.float32
    assert detection.points.shape == (3, 2) and detection.scores.shape == (3,)
    assert detection.scores[0] > detection.scores[1] == 0.0
    assert detection.box == (0.0, 0.0, 140.0, 100.0)


def test_points_are_the_frame_s_whatever_the_box(landmarker, blob_image):
    image = blob_image(200, 300, 121.25, 87.5)
    for roi in ((60, 40, 128, 96), (90.5, 60.25, 64, 64), (110, 70, 30, 50)):
        detection = landmarker(image, roi)
        assert detection.box == roi
        assert np.abs(detection.points[0] - [121.25, 87.5]).max() < 0.25


def test_crop_scale_of_the_contract_is_used(make_model, blob_image):
    image = blob_image(200, 200, 100.0, 100.0)
    roi = (95, 95, 12, 12)  # holds the core of the spot only: the margin holds the rest
    with lmk.load(make_model()) as tight, lmk.load(make_model(crop_scale=3.0)) as loose:
        assert loose.crop(image, roi).astype(int).mean() < tight.crop(image, roi).mean() / 2
        assert np.abs(loose(image, roi).points[0] - 100).max() < 0.25


def test_batch_of_different_sizes_is_each_alone(landmarker, blob_image):
    images = [blob_image(60, 90, 33, 21), blob_image(150, 70, 40, 99)]
    boxes = [(0, 0, 90, 60), (10, 60, 60, 80)]
    together = landmarker.batch(images, boxes)
    for detection, image, box in zip(together, images, boxes, strict=True):
        np.testing.assert_allclose(detection.points, landmarker(image, box).points, atol=1e-4)
    assert landmarker.batch([], []) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_wrong_images_are_named(landmarker, image):
    with pytest.raises(ValueError, match=r"image: got .* expected uint8 \(H, W, 3\)"):
        landmarker(image, (0, 0, 4, 4))


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, float("nan"))])
def test_wrong_boxes_are_named(landmarker, box):
    with pytest.raises(ValueError, match="box: got"):
        landmarker(np.zeros((8, 8, 3), np.uint8), box)


def test_one_pixel_image(landmarker):
    detection = landmarker(np.full((1, 1, 3), 200, np.uint8))
    assert np.abs(detection.points).max() < 0.01


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(lmk.UserError, match="no.onnx: no such file"):
        lmk.load(tmp_path / "no.onnx")
    with pytest.raises(lmk.UserError, match="run `lmk export`"):
        lmk.load(tmp_path / "shoes.safetensors")


def test_names(landmarker):
    assert landmarker.names == ("red", "green", "blue")


def test_import_is_light_and_runtime_needs_no_torch(model_path, tmp_path):
    program = f"""
import sys
import lmk
heavy = {{"torch", "onnx", "onnxruntime", "av", "torchvision", "rich"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import numpy as np
import lmk.runtime.pipeline, lmk.runtime.sources, lmk.runtime.outputs
lmk.load({str(model_path)!r})(np.zeros((9, 9, 3), np.uint8))
assert not {{"torch", "onnx", "torchvision"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_version_is_that_of_the_distribution():
    assert lmk.__version__ == version("lmk-toolkit")


@pytest.mark.parametrize("image", [None, [[0, 0]], 7])
def test_what_is_no_array_is_named(landmarker, image):
    for call in (lambda: landmarker(image), lambda: landmarker.batch([image], [(0, 0, 4, 4)])):
        with pytest.raises(ValueError, match=r"image: got \w+, expected uint8 \(H, W, 3\)"):
            call()


def test_repr_is_short(landmarker):
    expected = "<Landmarker 'blob', 3 landmarks, onnxruntime CPUExecutionProvider>"
    assert repr(landmarker) == expected


_FINDS = """
import sys, numpy, lmk
with lmk.load(sys.argv[1], sys.argv[2]) as landmarker:
    landmarker(numpy.zeros((64, 64, 3), numpy.uint8))
"""


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_engines_tell_nobody(model_path, tmp_path, device):
    """Nothing comes into an empty home folder, and no other host is called."""
    if device == "openvino":
        pytest.importorskip("openvino")
    home, calls = tmp_path / "home", tmp_path / "calls"
    home.mkdir()
    traced = ["strace", "-f", "-e", "trace=connect,sendto", "-o", calls]
    if not shutil.which("strace") or subprocess.run([*traced, "true"]).returncode:
        traced = []  # none here, or not allowed
    hidden = ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")  # which quieten, or lead elsewhere
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(home)}
    command = [*traced, sys.executable, "-c", _FINDS, model_path, device]
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert list(home.rglob("*")) == []
    assert not traced or "AF_INET" not in calls.read_text()


def test_an_image_is_a_path_a_picture_or_an_array(spots, tmp_path):
    with spots.landmarker() as landmarker:
        pixels = spots.picture(80, 96, (48, 40, 60))
        Image.fromarray(pixels).save(tmp_path / "a.png")
        found = [
            landmarker(image)
            for image in (pixels, tmp_path / "a.png", f"{tmp_path}/a.png", Image.fromarray(pixels))
        ]
        assert all(np.array_equal(each.points, found[0].points) for each in found)
        with pytest.raises(lmk.UserError, match="no such file"):
            landmarker("nowhere.png")
        with pytest.raises(ValueError, match="mode F"):
            landmarker(Image.new("F", (9, 9)))


def test_a_result_draws_tells_and_shows_itself(spots, monkeypatch):
    with spots.landmarker() as landmarker:
        pixels = spots.picture(80, 96, (48, 40, 60))
        found = landmarker(pixels)
    drawn = found.draw()
    assert drawn.size == (96, 80) and (np.asarray(drawn) != pixels).any()
    told = json.loads(json.dumps(found.to_dict()))
    assert list(told["landmarks"]) == ["red", "green", "blue"]
    assert told["landmarks"]["red"][:2] == pytest.approx(found.points[0].tolist())
    assert Image.open(io.BytesIO(found._repr_png_())).size == (96, 80)
    assert repr(found).startswith("<3 landmarks in 96×80 pixels")

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(lmk.UserError, match="pip install supervision"):
        found.to_supervision()
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(KeyPoints=SimpleNamespace))
    points = found.to_supervision()
    assert points.xy.shape == (1, 3, 2) and points.confidence.shape == (1, 3)
