"""`lmk detect` as a user types it: what it writes, what it says, how it ends."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lmk.runtime.owner import Owned
from lmk.runtime.pipeline import feed


@pytest.fixture
def run(lmk, capfd, model_path):
    """Run `lmk detect`; returns the exit code, standard output and standard error."""
    return lambda *words: (lmk("detect", *words, "--model", model_path), *capfd.readouterr())


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_one_video(run, blob_video, tmp_path):
    code, out, err = run(blob_video[0])
    folder = Path("runs/blob-landmarks")
    assert code == 0
    assert out.splitlines() == [str(folder / "landmarks.csv"), str(folder / "overlay.mp4")]
    assert "24 frames in" in err and "the slowest: " in err
    assert [path.name for path in Path("runs").iterdir()] == ["blob-landmarks"]


def test_every_format_at_once(run, blob_video):
    code, out, _ = run(
        blob_video[0], "--write", "csv,jsonl,coco,parquet,dlc,slp,overlay", "--output", "o",
        "--trails", 5, "--names",
    )  # fmt: skip
    assert code == 0 and len(out.splitlines()) == 8
    assert all(Path(line).stat().st_size for line in out.splitlines())


def test_several_sources_one_of_them_bad(run, blob_video, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "good.png")
    code, out, err = run(blob_video[0], "bad.mp4", "good.png", "--output", "o", "--streams", 2)
    assert code == 3 and out == "o\n"
    assert "bad.mp4: failed: bad.mp4: cannot be opened" in err and "failed: 1 of 3 sources" in err
    assert sorted(path.name for path in Path("o").iterdir()) == ["blob", "good"]
    code, _, err = run(blob_video[0], "bad.mp4", "good.png", "--output", "o", "--resume")
    assert code == 3 and "finished already: 2 of 3" in err and "failed: 1 of 1" in err


def test_results_that_are_there_are_told_before_anything_is_done(run, blob_video, tmp_path):
    shutil.copy(blob_video[0], "b.mp4")
    assert run(blob_video[0], "b.mp4", "--output", "o")[0] == 0
    shutil.rmtree("o/blob")
    code, out, err = run(blob_video[0], "b.mp4", "--output", "o")
    assert (code, out) == (2, "") and "o/b/landmarks.csv: got an output that exists" in err
    assert not Path("o/blob").exists()


@pytest.mark.parametrize("output", [None, ".", "out"])
def test_results_in_the_source_are_not_read_again(run, blob_video, blob_image, caplog, output):
    Image.fromarray(blob_image(48, 64, 30, 24)).save("a.png")
    os.makedirs("films")
    shutil.copy(blob_video[0], "films/b.mp4")
    more = ["--output", output] if output else []
    code, first, _ = run(".", *more)
    assert code == 0 and not caplog.records
    code, again, _ = run(".", *more, "--force")
    assert (code, again) == (0, first)
    assert ".: left out, results of earlier runs: 1 .mp4, 1 .png" in caplog.text
    code, _, err = run(".", *more, "--resume")
    assert code == 0 and "finished already: 2 of 2" in err


@pytest.mark.parametrize("kind", ["film", "picture"])
def test_results_beside_their_source(run, blob_video, blob_image, tmp_path, kind):
    source = Path("b.mp4" if kind == "film" else "b.png")
    shutil.copy(blob_video[0], "b.mp4")
    Image.fromarray(blob_image(48, 64, 30, 24)).save("b.png")
    assert run(source, "--output", ".")[0] == 0
    names = {".lmk.json", "b.mp4", "b.png", "landmarks.csv"}
    assert {path.name for path in tmp_path.iterdir()} - {"overlay", "overlay.mp4"} == names
    code, _, err = run(source, "--output", ".")
    assert code == 2 and "landmarks.csv: got an output that exists already" in err
    assert run(source, "--output", ".", "--resume")[0] == 0


def test_live_is_for_one_video(run, blob_video):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("a.png")
    code, _, err = run("a.png", "--live")
    assert code == 2 and "--live: got images" in err
    code, _, err = run(blob_video[0], "a.png", "--live")
    assert code == 2 and "--live: got it with 2 sources" in err
    code, _, err = run(blob_video[0], "--live", "--resume")
    assert code == 2 and "--live: got it with --resume" in err


def test_an_unreadable_image_shows_in_the_exit_code(run, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    code, _, err = run("in", "--output", "o")
    assert code == 3 and "skipped: " in err and "b.png" in err


def test_a_finished_run_is_not_repeated_by_resume(run, blob_video):
    run(blob_video[0], "--output", "o")
    before = Path("o/landmarks.csv").stat().st_mtime_ns
    code, out, err = run(blob_video[0], "--output", "o", "--resume")
    assert (code, out) == (0, "") and "finished already: 1 of 1" in err
    assert Path("o/landmarks.csv").stat().st_mtime_ns == before
    code, _, err = run(blob_video[0], "--output", "o")
    assert code == 2 and "exists already" in err
    code, _, err = run(blob_video[0], "--output", "o", "--roi", "center", "--resume")
    assert code == 2 and "o: --roi: got center, expected full as in the run before" in err
    shutil.copy(blob_video[0], "other.mp4")
    code, _, err = run("other.mp4", "--output", "o", "--resume")
    assert code == 2 and "o: its files: blob.mp4 is gone (one of 2 that differ)" in err
    Path("o/.lmk.json").unlink()
    code, _, err = run(blob_video[0], "--output", "o", "--resume")
    assert code == 2 and "o: got results that do not say what they were made of" in err


def test_two_runs_do_not_share_a_folder(run, blob_video):
    with Owned(Path("o")):
        code, _, err = run(blob_video[0], "--output", "o", "--force")
    assert code == 2 and f"o: is being written by process {os.getpid()} on" in err
    assert run(blob_video[0], "--output", "o")[0] == 0
    assert sorted(path.name for path in Path().iterdir()) == ["o"]


def test_a_pattern_in_quotes(run, blob_video):
    code, _, err = run(f"{blob_video[0].parent}/bl*b.mp4", "--no-overlay", "--output", "o")
    assert code == 0 and "24 frames" in err
    code, _, err = run(f"{blob_video[0].parent}/no*.mp4")
    assert code == 2 and "no*.mp4" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.mp4"], "no.mp4"),
        (["VIDEO", "--write", "xml"], "format: got 'xml', expected some of csv, overlay"),
        (["VIDEO", "--write", "csv,"], "got 'csv,', expected names with commas between them"),
        (["VIDEO", "--write", "overlay", "--no-overlay"], "got nothing to write"),
        (["VIDEO", "--skeleton", "no.csv"], "no.csv: got no such file"),
        (["VIDEO", "--smooth-by", "0", "1"], "cut-off of 0.0 Hz"),
        (["VIDEO", "--roi", "track", "--start", "1,2"], "roi: got '1,2'"),
        (["VIDEO", "--hwaccel", "nonsense"], "nonsense"),
        (["VIDEO", "--detector", "no.onnx"], "no.onnx"),
        (["VIDEO", "--engine", "no.engine"], "leave the engine out"),
    ],
)
def test_bad_words_are_one_line(run, blob_video, arguments, words):
    given = [str(blob_video[0]) if word == "VIDEO" else word for word in arguments]
    code, out, err = run(*given)
    assert (code, out) == (2, "") and words in err
    assert len([line for line in err.splitlines() if line.startswith("lmk: ")]) == 1
    assert not Path("runs").exists()


_PROGRAM = """
import os, sys, time
from lmk.cli import main
from lmk.runtime import finder
from lmk.runtime.pipeline import feed
feed.CHUNK = 6
locate = finder.Finder.locate
def halting(self, crops, boxes):
    while os.path.exists(".o.partial/000001.jsonl"):
        time.sleep(1)
    return locate(self, crops, boxes)
if sys.argv.pop(1) == "halting":
    finder.Finder.locate = halting
main()
"""
_WRITE = ("--write", "csv,overlay,jsonl,coco,parquet,dlc,slp", "--trails", "9", "--batch", "2")


@pytest.mark.parametrize("more", [(), ("--smooth", "--roi", "track")])
def test_kill_9_and_resume_end_as_if_nothing_had_been(
    run, tmp_path, blob_video, model_path, monkeypatch, more
):
    def start(how, *options):
        arguments = ["detect", blob_video[0], "--model", model_path, *_WRITE, *more, *options]
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, how, *map(str, arguments)],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )

    killed = start("halting", "--output", "o")
    chunk = tmp_path / ".o.partial" / "000001.jsonl"
    while not chunk.exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert chunk.exists() and not (tmp_path / "o" / "landmarks.csv").exists()
    _, told = (resumed := start("through", "--output", "o", "--resume")).communicate()
    little = 4 if "track" in more else 0  # nothing in it is found by its landmarks
    assert resumed.returncode == little and " of them before)" in told, told
    monkeypatch.setattr(feed, "CHUNK", 6)
    assert run(blob_video[0], *_WRITE, *more, "--output", "whole")[0] == little
    ours, theirs = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("o", "whole")
    )
    assert sorted(ours) == sorted(theirs) and len(ours) == 9
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert not (tmp_path / ".o.partial").exists()


_TELLS = """
from lmk.cli import main
from lmk.runtime.outputs.tables import CsvSink
write, rows = CsvSink.write, []
def told(self, frame, detections):
    write(self, frame, detections)
    rows.append(frame.index)
    if len(rows) == 6:
        print("six rows", flush=True)
CsvSink.write = told
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_live_stream_that_is_terminated_keeps_what_was_found(tmp_path, blob_image, model_path):
    arguments = ["detect", "stdin:64x48@25", "--live", "--model", str(model_path), "--output", "o"]
    with subprocess.Popen(
        [sys.executable, "-c", _TELLS, *arguments],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        said = []
        reader = threading.Thread(target=lambda: said.append(process.stdout.readline()))
        reader.start()
        while reader.is_alive() and process.poll() is None:
            process.stdin.write(blob_image(48, 64, 30, 24).tobytes())
            process.stdin.flush()
            time.sleep(0.02)
        reader.join()
        process.send_signal(signal.SIGTERM)  # it waits for the next frame, which does not come
        code = process.wait(timeout=60)
        told = process.stderr.read().decode()
    assert (said, code) == ([b"six rows\n"], 128 + signal.SIGTERM), told
    assert "interrupted" in told
    assert len((tmp_path / "o" / "landmarks.csv").read_text().splitlines()) >= 7
    with av.open(str(tmp_path / "o" / "overlay.mp4")) as film:
        assert len(list(film.decode(video=0))) >= 6
    assert json.loads((tmp_path / "o" / ".lmk.json").read_text())["source"] == "stdin"
    again = [sys.executable, "-m", "lmk.cli", *arguments[:2], *arguments[3:], "--resume"]
    done = subprocess.run(again, cwd=tmp_path, input="", capture_output=True, text=True)
    assert done.returncode == 2 and "o: got results of what can be read but once" in done.stderr


CASES = Path(__file__).parents[4] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no inputs that once went wrong, {CASES}")
@pytest.mark.parametrize(
    ("name", "code", "frames", "words"),
    [
        ("animated_images/anim.gif", 0, range(12), ""),
        ("animated_images/anim.webp", 0, range(12), ""),
        ("tiff_stack/stack8.tif", 0, range(8), ""),
        ("timelapse/tl_1_2.mp4", 0, range(6), ""),
        ("damaged_start/c_k0.mp4", 3, range(24, 120), "24 frames lost"),
        *((f"other_suffixes/x.{end}", 0, range(10), "") for end in ["3g2", "asf", "divx", "nut"]),
        *((f"other_suffixes/x.{end}", 0, range(10), "") for end in ["insv", "vob"]),
        ("hostile/postscript.png", 2, (), "cannot be read as an image"),
        ("hostile/strip.png", 2, (), "got 50000000×2 pixels"),
        ("hostile/m.mp4", 2, (), "cannot be opened as a video"),
        ("hostile/deep.safetensors", 2, (), "expected a video, an image"),
    ],
)
def test_inputs_that_once_went_wrong(run, name, code, frames, words):
    ended, _, said = run(CASES / name, "--output", "o")
    assert ended == code and words in said and "Traceback" not in said
    table, film = Path("o/landmarks.csv"), Path("o/overlay.mp4")
    assert table.exists() == film.exists() == bool(frames)
    if frames:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["frame"]) for row in rows] == list(frames)
        assert name != "damaged_start/c_k0.mp4" or rows[0]["time_s"] == "0.800800"
        with av.open(str(film)) as container:
            assert sum(1 for _ in container.decode(video=0)) == len(frames)


def test_a_hostile_picture_costs_no_neighbour(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "good.png")
    (folder / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    Image.new("1", (200_000, 2)).save(folder / "b.png")
    code, _, said = run(folder, "--output", "o", "--no-overlay")
    assert code == 3 and "a.png: cannot be read as an image" in said and "got 200000×2" in said
    assert "good.png" in Path("o/landmarks.csv").read_text()
