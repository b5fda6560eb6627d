"""`lmk discover`: a film of a small figure that turns -> landmarks; each part once."""

from __future__ import annotations

import csv
import itertools
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from click.testing import CliRunner

from lmk.commands import cli
from lmk.export import discovery
from lmk.runtime.model import read_header, read_model
from lmk.train.datasets.drawn import walk

FRAMES = 40


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "moth.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 160, 120, "bgr0"
        for image, _, _ in walk("butterfly", FRAMES, size=(120, 160)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def run(film, tmp_path, core_path, same_trace, monkeypatch):
    """Return a function that runs it in a folder of its own; options are added."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))

    def call(*options):
        given = ["--steps", "2", "--core", str(core_path), "--threads", "1"]
        given += ["--device", "cpu", "--landmarks", "5"]
        return CliRunner().invoke(cli, ["discover", str(film), *given, *options])

    return call


def test_a_film_is_all_it_takes_and_what_is_finished_is_not_done_again(run, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(discovery, "write_report", None)
        assert run().exit_code != 0
    with monkeypatch.context() as broken:
        broken.setattr(discovery, "find_in_film", None)
        broken.setattr(discovery.adapting, "adapt", None)
        done = run("--resume")
    assert done.exit_code == 0, done.output
    named = [line for line in done.stdout.splitlines() if line.startswith("runs/")]
    assert named == [
        "runs/moth-found.png", "runs/moth.html", "runs/moth-landmarks/overlay.mp4"
    ]  # fmt: skip
    assert all(Path(name).stat().st_size for name in named)
    assert "lmk detect OTHER.mp4" in done.stderr
    header = read_header(Path("runs/moth.safetensors"))
    _, contract = read_model(Path("runs/moth.onnx"))
    assert header["data"] == "moth.mkv" and contract.num_landmarks == 5
    assert contract.pack_sha256 == header["sha256"]
    with open("runs/moth-boxes.csv") as file:
        boxes = {int(row["frame"]): row for row in csv.DictReader(file)}
    with open("runs/moth-landmarks/landmarks.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 0.9 * FRAMES
    for row in rows:  # found in the same boxes that were learnt from
        assert float(row["box_x"]) == pytest.approx(float(boxes[int(row["frame"])]["x"]), abs=0.02)
    with monkeypatch.context() as broken:
        for name in ("find_in_film", "write_report", "export_pack", "detect_task"):
            broken.setattr(discovery, name, None)
        done = run("--resume")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("before") == 5
    longer = ("--resume", "--steps", "3", "--time-budget", "9h")
    with monkeypatch.context() as broken:  # a larger budget is gone on with, and it with that
        broken.setattr(discovery, "find_in_film", None)
        broken.setattr(discovery, "detect_task", None)
        assert run(*longer).exit_code != 0
    assert run(*longer).exit_code == 0
    pack = Path("runs/moth.safetensors")
    assert read_header(pack)["step"] == 3
    assert read_model(Path("runs/moth.onnx"))[1].pack_sha256 == read_header(pack)["sha256"]
    for made in ("moth.html", "moth-landmarks/landmarks.csv"):
        assert Path("runs", made).stat().st_mtime_ns > pack.stat().st_mtime_ns
    other = run("--resume", "--objects", "2")
    assert "--objects: got 2, expected None as in the run before" in str(other.exception)
    assert "exists already" in str(run().exception)


def test_boxes_that_were_corrected_are_taken(run, monkeypatch):
    missing = run("--find", "given")
    assert "runs/moth-boxes.csv: got no such file, expected the boxes" in str(missing.exception)
    Path("runs").mkdir(exist_ok=True)
    rows = "".join(f"{n},0,10,20,60,60\n" for n in range(FRAMES))
    Path("runs/moth-boxes.csv").write_text("frame,track,x,y,w,h\n" + rows)
    seen = []
    monkeypatch.setattr(discovery.adapting, "adapt", lambda config, data: seen.append(data))
    monkeypatch.setattr(discovery, "find_in_film", None)
    run("--find", "given")
    assert len(seen[0].names) > 3 and all(name.startswith("moth") for name in seen[0].names)
    assert Path("runs/moth-boxes.csv").read_text().endswith(rows)


def test_adaptation_gets_what_finding_and_detection_leave(run, monkeypatch):
    class Enough(Exception):
        pass

    def adapt(config, data):
        raise Enough(config.minutes)

    monkeypatch.setattr(discovery.adapting, "adapt", adapt)
    monkeypatch.setattr(discovery, "_find", _finding_takes(100.0, discovery._find))
    clock = itertools.count(0.0, 60.0).__next__  # so that cutting the crops takes a minute
    monkeypatch.setattr(discovery, "time", SimpleNamespace(monotonic=clock))
    done = run("--time-budget", "20m", "--steps", "2")
    assert done.exception.args == (pytest.approx(20 - (2 * 100 + 60 + 40) / 60),)
    done = run("--time-budget", "2m", "--force")
    assert done.exception.args == (1,)  # never less than half


def _finding_takes(seconds, find):
    def slow(*arguments):
        find(*arguments)
        return seconds

    return slow
