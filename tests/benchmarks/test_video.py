"""The end-to-end benchmark: both contestants do the same work, and the table says what they did."""

import csv
import json

import numpy as np
import pytest

pytest.importorskip("cv2")

from lmk.benchmarks import video as bench
from lmk.benchmarks.clip import write_clip
from lmk.cli import main
from lmk.runtime.boxes import parse_roi
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import load
from lmk.runtime.sources import open_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Half a second of 1920x1080."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 0.5)


@pytest.fixture
def model(exported_detector):
    return exported_detector


def test_the_clip_is_what_it_says(clip):
    with open_source(clip) as source:
        frames = list(source)
        assert (source.size, source.frame_rate) == ((1080, 1920), 30)
    assert len(frames) == 15
    assert np.abs(frames[0].image.astype(int) - frames[10].image).mean() > 1  # it moves


def test_the_plain_loop_finds_what_we_find(tmp_path, clip, model):
    region = parse_roi("center")
    with load(model, threads=1) as landmarker:
        bench.plain_loop(landmarker, clip, region, tmp_path, overlay=True)
        bench._detect(landmarker, clip, region, tmp_path, ("csv", "overlay"))
        num_landmarks = len(landmarker.names)
    plain = np.array(list(csv.reader((tmp_path / "plain.csv").open())), float)
    with (tmp_path / "landmarks.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    ours = np.array([row[8:] for row in rows], float)
    assert plain.shape == (15, 1 + 3 * num_landmarks) and ours.shape == (15, 3 * num_landmarks)
    # OpenCV's crop is aliased, so the points differ; that they are in the same frame shows here.
    assert np.median(np.abs(plain[:, 1::3] - ours[:, 0::3])) < 40
    with open_source(tmp_path / "plain.mp4") as drawn:
        assert len(list(drawn)) == 15


def test_compare_has_every_row(tmp_path, clip, model):
    result = bench.compare(model, clip, "center", tmp_path, rounds=2, threads=1)
    assert result["frames"] == 15 and result["size"] == [1080, 1920]
    rows = result["rows"]
    assert list(rows) == [
        "csv", "plain csv", "csv+overlay", "plain csv+overlay", "model alone", "decode alone",
    ]  # fmt: skip
    assert all(row["frames_per_second"] > 0 and row["cpu_seconds"] > 0 for row in rows.values())
    for name in ("csv", "csv+overlay"):
        assert set(rows[name]["busy_seconds"]) == {"decode", "crop", "run", "write"}
        assert rows[name]["speed_up_on_plain"] > 0 and rows[name]["bottleneck"]


def test_the_command_prints_and_writes(tmp_path, clip, model, capsys):
    file = tmp_path / "video.json"
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(model), "--video", str(clip), "--rounds", "1", "--json", str(file)])
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "clip.mp4: 15 frames of 1920×1080" in out and "plain csv+overlay" in out
    result = json.loads(file.read_text())
    assert {"model", "roi", "videos", "machine", "rounds"} <= set(result)


def test_a_runner_that_cannot_be_named_here(tmp_path, model, capsys):
    with pytest.raises(SystemExit):
        main(["bench", str(model), "--video", "x.mp4", "--against", "eager"])
    assert "--against: got eager, expected one of ort-cpu" in capsys.readouterr().err


def test_without_opencv_it_says_how_to_get_it(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        bench.bench_video(model, ["x.mp4"])
