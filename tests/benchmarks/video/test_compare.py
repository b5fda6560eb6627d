"""The end-to-end benchmark: both contestants do the same work, and the table says what they did."""

import csv
import json
import re

import numpy as np
import pytest

pytest.importorskip("cv2")

from lmk.benchmarks.clip import write_clip
from lmk.benchmarks.video import compare as bench
from lmk.benchmarks.video.plain_loop import Trajectory, apart, cut, plain_loop, read_ours
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import load
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.sources.open import open_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A quarter of a second of 1920x1080."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 0.25)


@pytest.fixture
def model(exported_detector):
    return exported_detector


@pytest.fixture
def boxes_csv(tmp_path):
    """Return a function: rows of frame, box and perhaps track -> a file."""

    def write(*rows):
        path = tmp_path / "boxes.csv"
        head = "frame,x,y,w,h,track"
        path.write_text("\n".join([head[: None if len(rows[0]) == 6 else -6], *map(_line, rows)]))
        return str(path)

    return write


def _line(row):
    return ",".join(map(str, row))


def test_the_clip_is_what_it_says(clip):
    with open_source(clip) as source:
        frames = list(source)
        assert (source.size, source.frame_rate) == ((1080, 1920), 30)
    assert len(frames) == 8
    assert np.abs(frames[0].image.astype(int) - frames[7].image).mean() > 1  # it moves


@pytest.mark.parametrize("box", [None, (0, 1500, 700, 600, 500), (0, -90.4, 10, 60, 300)])
def test_the_plain_loop_finds_what_we_find(tmp_path, clip, model, box, boxes_csv):
    """In the middle; beyond a corner, where the border is replicated; small, so that it grows."""
    region = parse_roi(boxes_csv(box) if box else "center")
    with load(model, threads=1) as landmarker:
        _, boxes, _ = bench._crops(landmarker, clip, region)
        plain = plain_loop(landmarker, clip, boxes, tmp_path, overlay=True)
        bench._detect(landmarker, clip, region, tmp_path, ("csv", "overlay"))
        scale = boxes[0][3] * landmarker.contract.crop_scale / landmarker.contract.input_size
    ours = read_ours(tmp_path / "landmarks.csv")
    assert plain.points.shape == ours.points.shape == (8, 5, 2)
    # A network of random weights answers to the last bit of a crop; trained ones do far better.
    distance = np.linalg.norm(plain.points - ours.points, axis=-1)
    assert np.median(distance) < 2 * scale
    rows = np.array(list(csv.reader((tmp_path / "plain.csv").open())), float)
    np.testing.assert_allclose(rows[:, 1::3], plain.points[..., 0], rtol=1e-6)
    with open_source(tmp_path / "plain.mp4") as drawn:
        assert len(list(drawn)) == 8


@pytest.mark.parametrize("left", [-3, 0, 2, 5])
@pytest.mark.parametrize("top", [-2, 0, 4])
def test_what_the_plain_loop_cuts_out_is_a_square_with_the_border_replicated(left, top):
    image = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    padded = np.pad(image, ((9, 9), (9, 9), (0, 0)), mode="edge")
    expected = padded[9 + top : 14 + top, 9 + left : 14 + left]
    np.testing.assert_array_equal(cut(image, left, top, 5), expected)


def test_only_points_that_are_relied_on_are_compared():
    points = np.zeros((2, 2, 2), np.float32)
    other = points.copy()
    other[0, 0], other[1, 1] = (3, 4), (900, 0)
    scores = np.array([[0.9, 0.9], [0.9, 0.1]], np.float32)
    found = apart(Trajectory(points, scores), Trajectory(other, scores))
    assert found == {"median_px": 0, "p99_px": 4.9, "confident": 3, "landmarks": 4}
    none = apart(Trajectory(points, 0 * scores), Trajectory(other, scores))
    assert none == {"median_px": None, "p99_px": None, "confident": 0, "landmarks": 4}


def test_the_command_prints_writes_and_judges(tmp_path, clip, model, bench_says):
    file = tmp_path / "video.json"
    claims = ["--assert", "csv.speed_up > 0", "--assert", "overlay.speed_up@1 < 0*model.slowest"]
    options = ["--video", clip, "--rounds", 2, "--threads", 1, "--json", file]
    code, out, _ = bench_says(model, *options, *claims)
    assert code == 1
    assert "clip.mp4: 8 frames of 1920×1080, rounds: 2" in out and "plain csv+overlay" in out
    assert re.search(r"csv.speed_up > 0: holds: [\d.]+ > 0\n", out)
    assert "overlay.speed_up@1 < 0*model.slowest: does not hold: " in out
    result = json.loads(file.read_text())
    assert (result["threads"], result["batch"], result["rounds"]) == (1, 4, 2)
    assert result["runner"] == result["plain_runner"] and result["machine"]["load"] >= 0
    [video] = result["videos"]
    assert video["frames"] == 8 and video["size"] == [1080, 1920]
    rows = video["rows"]
    assert list(rows) == ["csv", "plain-csv", "overlay", "plain-overlay", "model", "decode"]
    for row in rows.values():
        assert row["slowest"] <= row["frames_per_second"] <= row["fastest"]
        assert len(row["seconds"]) == 2 and row["cpu_seconds"] > 0
    for name in ("csv", "overlay"):
        assert set(rows[name]["busy_seconds"]) == {"decode", "crop", "run", "write"}
        assert rows[name]["speed_up"] > 0 and rows[name]["bottleneck"]
    assert video["apart"]["landmarks"] == 8 * 5


def test_the_plain_loop_runs_with_our_runner_too_where_that_is_another(clip, model, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("LMK_DEVICE", "openvino")  # what `auto` takes is no plain loop's
    result = bench.bench_video(model, [str(clip)], rounds=1, threads=1, device="openvino")
    assert "OpenVINO" in result["runner"] and "onnxruntime" in result["plain_runner"]
    rows = result["videos"][0]["rows"]
    assert "same-runner" in rows and rows["csv"]["speed_up_same_runner"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "eager"], "--against: got eager, expected one of ort-cpu"),
        (["--roi", "track"], "the plain loop cannot track"),
        (["--roi", "1,2"], "roi: got '1,2', expected auto, full"),
        (["--video", "long:x"], "video: got 'long:x', expected long:SECONDS with a number above 0"),
        (["--video", "long:0"], "video: got 'long:0'"),
        (["--video", "long:-3"], "video: got 'long:-3'"),
        (["--video", "long:nan"], "video: got 'long:nan'"),
        (["--video", "nowhere.mp4"], "video: got 'nowhere.mp4', expected a file or long:SECONDS"),
        (["--video", "nowhere.mp4", "--against", "auto"], "video: got 'nowhere.mp4'"),
        (["--threads", "0"], "threads: got 0"),
        (["--assert", "ort-cpu.p50 < 1"], "got 'ort-cpu', expected one of: csv, plain-csv"),
        (["--assert", "csv.speed < 1"], "got 'speed' of csv, expected one of: frames_per_second"),
        (["--assert", "csv.speed_up@2 < 1"], "got video 2, expected one of: 1"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(clip, model, bench_says, arguments, words):
    given = [] if "--video" in arguments else ["--video", clip]
    code, _, line = bench_says(model, *given, *arguments)
    assert code == 2 and words in line


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, 1, 1, 9, 9, 1), (0, 5, 5, 9, 9, 2)], "got 2 boxes in frame 0 of clip.mp4, expected"),
        ([(3, 1, 1, 9, 9, 1)], "got 0 boxes in frame 0"),
        ([(0, 9000, 1, 9, 9)], "got a box beyond frame 0"),
    ],
)
def test_other_than_one_box_a_frame_is_refused(clip, model, bench_says, boxes_csv, rows, words):
    options = ["--video", clip, "--roi", boxes_csv(*rows), "--threads", 1]
    code, _, line = bench_says(model, *options)
    assert code == 2 and words in line


def test_model_that_is_not_fp32_needs_its_pack(exported_detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with load(exported_detector, threads=1) as landmarker:
        contract = landmarker.contract
    assert bench._in_fp32(exported_detector, contract, tmp_path) == exported_detector
    object.__setattr__(contract, "precision", "int8")
    with pytest.raises(UserError, match="got int8 without its pack, .* the plain loop runs it in"):
        bench._in_fp32(exported_detector, contract, tmp_path)


def test_without_opencv_it_says_how_to_get_it(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        bench.bench_video(model, ["x.mp4"])
