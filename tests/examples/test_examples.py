"""The examples run as they stand, and say what is true of drawn pictures."""

import csv
import importlib.util
import io
import json
import runpy
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lmk
from lmk.train.datasets.drawn.drawn import builtin

ROOT = Path(__file__).parents[2]


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_models = _load(ROOT / "tests/runtime/conftest.py")
make_model, model_path = _models.make_model, _models.model_path
blob_image, write_video, blob_video = _models.blob_image, _models.write_video, _models.blob_video


def run(name: str, *arguments) -> None:
    _load(ROOT / "examples" / f"{name}.py").main([str(one) for one in arguments])


@pytest.mark.parametrize(
    "line",
    [
        "batch_folder . o.npz --model unicorns",
        "detect_image photo.png o.png --model unicorns",
        "detect_image unicorns.png o.png --model faces",
        "live_camera photo.png --model unicorns",
        "measure_distance photo.png a b --model unicorns",
        "named_points unicorns few.csv photo.png --name mine",
        "serve_http --model unicorns",
        "track_and_smooth photo.png --model unicorns",
    ],
)
def test_what_a_user_can_mend_is_told_in_a_line(line, photo, monkeypatch):
    name, *arguments = line.split()
    monkeypatch.chdir(photo.parent)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    message = ended.value.code  # Python prints it and exits with 1
    assert isinstance(message, str) and "unicorns" in message and "\n" not in message


@pytest.fixture
def photo(tmp_path, blob_image):
    """A spot at (41, 22)."""
    path = tmp_path / "photo.png"
    Image.fromarray(blob_image(60, 80, 41, 22)).save(path)
    return path


def test_all_are_listed_and_small():
    files = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    listed = (ROOT / "examples/README.md").read_text()
    assert all(f"[{name}]({name})" in listed for name in files)
    others = [name for name in files if name != "triton_client.py"]
    assert all(len((ROOT / "examples" / name).read_text().splitlines()) < 60 for name in others)
    assert set(others) <= {line.split("examples/")[-1].split()[0] for line in _usage(others)}


def _usage(names):
    """The lines of the docstrings that say how to call them."""
    return [
        line
        for name in names
        for line in (ROOT / "examples" / name).read_text().splitlines()
        if line.strip().startswith("python examples/")
    ]


def test_detect_image(photo, model_path, tmp_path, capsys):
    run("detect_image", photo, tmp_path / "drawn.png", "--model", model_path)
    name, x, y, score = capsys.readouterr().out.splitlines()[0].split()
    assert (name, float(x), float(y)) == ("red", pytest.approx(41, abs=1), pytest.approx(22, abs=1))
    assert 0 <= float(score) <= 1
    drawn, before = (np.asarray(Image.open(p)) for p in (tmp_path / "drawn.png", photo))
    assert drawn.shape == before.shape and (drawn != before).any()


def test_batch_folder(tmp_path, blob_image, model_path, capsys):
    (tmp_path / "in").mkdir()
    for index in range(5):
        picture = blob_image(40 + index, 60, 20 + index, 18)
        Image.fromarray(picture).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "5.png").write_bytes(b"broken")
    run("batch_folder", tmp_path / "in", tmp_path / "o.npz", "--model", model_path, "--batch", 2)
    saved = np.load(tmp_path / "o.npz")
    assert saved["files"].tolist() == [f"{index}.png" for index in range(5)]
    assert saved["points"].shape == (5, 3, 2) and saved["scores"].shape == (5, 3)
    np.testing.assert_allclose(saved["points"][:, 0, 0], 20 + np.arange(5), atol=1)
    assert "skipped: " in capsys.readouterr().out


def test_measure_distance(tmp_path, blob_image, write_video, model_path, capsys):
    pictures = [255 - blob_image(80, 96, 20 + 3 * index, 30) for index in range(6)]
    bright = write_video(tmp_path / "bright.mp4", pictures)
    run("measure_distance", bright, "red", "green", "--model", model_path)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    with lmk.load(model_path) as landmarker:
        found = [each.detections[0].points for each in landmarker.stream(bright)]
    expected = [float(np.hypot(*(points[0] - points[1]))) for points in found]
    assert [float(row["distance_px"]) for row in rows] == pytest.approx(expected, abs=0.01)
    assert [float(row["time_s"]) for row in rows] == pytest.approx(np.arange(6) / 25)


def test_measure_distance_of_an_unknown_landmark(blob_video, model_path, capsys):
    with pytest.raises(lmk.UserError, match="'nose', expected one of red, green, blue"):
        run("measure_distance", blob_video[0], "red", "nose", "--model", model_path)
    assert not capsys.readouterr().out


def test_measure_distance_where_scores_are_low(blob_video, model_path, capsys):
    run("measure_distance", blob_video[0], "red", "green", "--model", model_path)
    assert capsys.readouterr().out.splitlines()[1:] == [f"{n / 25:.3f}," for n in range(24)]


def test_live_camera_with_a_file_in_its_place(blob_video, model_path, capsys):
    run("live_camera", blob_video[0], "--model", model_path)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    numbers = [int(row[0]) for row in rows]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 23
    skipped = sum(int(row[1]) for row in rows)
    assert skipped + len(rows) == 24


def test_track_and_smooth(blob_video, model_path, capsys):
    run("track_and_smooth", blob_video[0], "--model", model_path, "--start", "4,14,32,32")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["time_s"] for line in lines] == pytest.approx(np.arange(24) / 25)
    first = lines[0]["objects"]["0"]
    assert set(first["points"]) == {"red", "green", "blue"} and len(first["box"]) == 4
    assert first["points"]["red"] == [round(value, 2) for value in first["points"]["red"]]
    assert first["points"]["red"] == pytest.approx(blob_video[1][0].tolist(), abs=2)


def test_serve_http(photo, model_path):
    module = _load(ROOT / "examples/serve_http.py")
    with lmk.load(model_path, threads=1) as landmarker:
        expected = landmarker(np.asarray(Image.open(photo)))
        with module.make_server(landmarker, 0) as server:
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            try:
                address = f"http://127.0.0.1:{server.server_port}"
                answers = _post_at_once(address, photo.read_bytes(), 8)
                with pytest.raises(urllib.error.HTTPError, match="400: not an image"):
                    urllib.request.urlopen(address, b"no image")
            finally:
                server.shutdown()
                serving.join()
    assert len(answers) == 8
    for answer in answers:
        assert list(answer) == ["red", "green", "blue"]
        red = [*expected.points[0], expected.scores[0]]
        assert answer["red"] == pytest.approx(red, abs=5e-4)
        assert answer["red"] == [round(value, 3) for value in answer["red"]]


def _post_at_once(address, body, count):
    answers = []

    def post():
        with urllib.request.urlopen(address, body) as answer:
            answers.append(json.load(answer))

    threads = [threading.Thread(target=post) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_named_points(tmp_path, monkeypatch, capsys):
    """Annotated is a point that follows from what faces find: it is found in a new image."""
    monkeypatch.chdir(tmp_path)
    rows = [["file", "nose_x", "nose_y"]]
    with lmk.load("faces", threads=1) as landmarker:
        for index, sample in enumerate(builtin("puppet", 7).samples):
            Image.fromarray(image := sample.read()).save(f"{index}.png")
            rows.append([f"{index}.png", *landmarker(image).points[:2].mean(axis=0)])
    with open("few.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows[:-1])
    capsys.readouterr()
    run("named_points", "faces", "few.csv", "6.png", "--name", "mine")
    name, x, y, _ = capsys.readouterr().out.split()
    assert name == "nose" and Path("runs/mine.safetensors").is_file()
    assert (float(x), float(y)) == pytest.approx(tuple(rows[-1][1:]), abs=4)
