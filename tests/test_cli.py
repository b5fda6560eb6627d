"""Every command as a user types it, on built-in data, and what it says when something is off."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lmk.benchmarks import demo
from lmk.cli import main
from lmk.runtime.doctor import diagnosis
from lmk.train.datasets.drawn.drawn import clip
from lmk.train.network import hourglass

TINY_CORE = ["--width", "tiny", "--input-size", "64", "--steps", "3", "--batch", "4"]
TINY_CORE += ["--threads", "1"]
TINY_ADAPT = ["--steps", "3", "--batch", "4", "--generator-width", "8", "--threads", "1"]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder in which the first three of the four lines have been run."""
    folder = tmp_path_factory.mktemp("workspace")
    with contextlib.chdir(folder):
        assert run("train-core", "--data", "builtin:puppet", *TINY_CORE) == 0
        assert run("adapt", "--data", "builtin:butterfly", *TINY_ADAPT) == 0
        assert run("export") == 0
    return folder


@pytest.fixture
def here(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def fails(capsys, *arguments: object) -> str:
    """The one line that a failing command says; its exit code is 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line.startswith("lmk: ")]
    assert len(lines) == 1, output.err
    assert "Traceback" not in output.err
    return lines[0]


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for image, _, _ in clip("butterfly", 10, size=(120, 160)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


KINDS = ("safetensors", "html", "onnx")


def test_the_chain_leaves_its_files_in_runs(here):
    names = {path.name for path in (here / "runs").iterdir() if path.is_file()}
    assert names == {"core.safetensors", *(f"butterfly.{kind}" for kind in KINDS)}
    assert Image.open(here / "runs/butterfly/preview.png").size == (8 * 64, 3 * 64)
    assert any((here / "runs/core").glob("events*"))


def test_detect_takes_the_newest_model_and_writes_a_row_a_frame(here, video, capsys):
    assert run("detect", video) == 0
    table, overlay = (Path(line) for line in capsys.readouterr().out.splitlines())
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(10))
    assert all(0 <= float(row["p9_x"]) < 160 for row in rows)
    with av.open(str(overlay)) as container:
        frames = [frame for frame in container.decode(video=0)]
    assert (len(frames), frames[0].width, frames[0].height) == (10, 160, 120)


def test_detect_and_info_need_no_torch(here, video):
    code = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "tensorboard"):
    sys.modules[name] = None  # importing it fails
from lmk.cli import main
main(sys.argv[1:])
"""
    for arguments, expected in (
        (["detect", str(video), "--output", "runs/no-torch"], 0),
        (["info", "runs/core.safetensors"], 0),
        (["info", "runs/butterfly.onnx"], 0),
        (["adapt", "--data", "builtin:butterfly", "--output", "runs/y.safetensors"], 2),
    ):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True)
        assert done.returncode == expected, done.stderr
    assert "pip install torch" in done.stderr


def test_detect_in_a_folder_of_images(here, tmp_path):
    for index in range(3):
        Image.fromarray(np.full((40, 60, 3), 80 * index, np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    assert run("detect", tmp_path, "--output", here / "runs/folder") == 3  # one is left out
    assert len(list((here / "runs/folder/overlay").glob("*.png"))) == 3
    with (here / "runs/folder/landmarks.csv").open(newline="") as file:
        assert [row["source"] for row in csv.DictReader(file)] == ["0.png", "1.png", "2.png"]


def evaluate(path, *options):
    """What `lmk evaluate` writes of a few butterflies."""
    common = ["--data", "builtin:butterfly", "--images", 6, "--regressor-images", 12]
    assert run("evaluate", *common, *options, "--threads", 1, "--output", path) == 0
    return json.loads(path.read_text())


def test_evaluate_prints_a_table_and_writes_json(here, capsys, tmp_path):
    report = evaluate(tmp_path / "r.json")
    table = capsys.readouterr().out
    assert f"{report['forward_mean_shape_percent']:.2f}" in table
    assert (report["test_images"], report["regressor_images"]) == (6, 12)
    assert len(report["consistency_px_landmarks"]) == 10
    assert report["leak_free"] and "leak_free_variant" not in report


def test_a_folder_that_has_grown_since_is_told(here, capsys, tmp_path):
    """Which tenth is held out hangs on all images: now some count that were learnt from."""
    folder = tmp_path / "cups"
    folder.mkdir()
    for index in range(30):
        Image.effect_noise((40, 40), 60).convert("RGB").save(folder / f"{index}.png")
    common = "--data", folder, "--threads", 1
    beside = "--steps", 1, "--output", tmp_path / "cups.safetensors"  # its run would be `folder`
    assert "lies inside the data" in fails(capsys, "adapt", *common, *beside)
    pack = tmp_path / "runs/cups.safetensors"
    assert run("adapt", *common, "--steps", 1, "--no-report", "--output", pack) == 0
    capsys.readouterr()
    told = "images came or went or could not be read"
    assert run("evaluate", pack, *common) == 0
    assert told not in capsys.readouterr().err
    Image.effect_noise((40, 40), 60).convert("RGB").save(folder / "30.png")
    assert run("evaluate", pack, *common) == 0
    assert told in capsys.readouterr().err
    page = tmp_path / "cups.html"
    assert run("report", pack, *common, "--output", page) == 0
    told = "some of which it was adapted to, unless it is another set of that name"
    assert told in page.read_text()
    other = tmp_path / "other/cups"  # of one image
    other.mkdir(parents=True)
    (folder / "30.png").rename(other / "30.png")
    assert run("report", pack, "--data", other, "--output", page, "--force") == 0
    assert "that it was adapted to" in page.read_text()


def test_another_tenth_of_a_joined_set_is_told(here, capsys, tmp_path):
    """What could not be read took part in the draw of the join, and takes none in that alone."""
    for name in ("cups", "mugs"):
        (tmp_path / name).mkdir()
        for index in range(30):
            noise = Image.effect_noise((40, 40), 60 + index).convert("RGB")
            noise.save(tmp_path / name / f"{index}.png")
    (tmp_path / "cups/7.png").write_bytes(b"no image")
    pack = tmp_path / "runs/both.safetensors"
    both = "--data", tmp_path / "cups", "--data", tmp_path / "mugs", "--join"
    short = "--steps", 1, "--no-report", "--threads", 1, "--output", pack
    assert run("adapt", *both, *short) == 0
    capsys.readouterr()
    told = "images came or went or could not be read"
    assert run("evaluate", pack, "--data", tmp_path / "mugs") == 0
    assert told not in capsys.readouterr().err
    assert run("evaluate", pack, "--data", tmp_path / "cups") == 0
    assert told in capsys.readouterr().err


def test_evaluate_on_fitted_crops_shows_the_leak_free_ones_too(here, capsys, tmp_path):
    report = evaluate(tmp_path / "r.json", "--crop", "annotation", "--crop-margin", 1.8)
    table = capsys.readouterr().out
    other = report["leak_free_variant"]
    assert (report["crop"], report["leak_free"]) == ("annotation", False)
    assert (other["crop"], other["leak_free"]) == ("object", True)
    for each in (report, other):
        assert f"{each['forward_percent']:.2f}" in table
    assert report["forward_mean_shape_percent"] != other["forward_mean_shape_percent"]


def test_evaluate_takes_several_packs(here, capsys, tmp_path):
    pack = "runs/butterfly.safetensors"
    reports = evaluate(tmp_path / "r.json", pack, pack)
    assert [report["pack"] for report in reports] == ["butterfly.safetensors"] * 2
    assert reports[0] == reports[1]


def test_evaluate_as_the_released_code_does(here, tmp_path):
    report = evaluate(tmp_path / "r.json", "--preset", "released")
    assert report["batch_norm"] == "batch"
    learnt = evaluate(tmp_path / "s.json", "--preset", "released", "--batch-norm", "eval")
    assert learnt["batch_norm"] == "eval" and learnt["spread_px"] != report["spread_px"]


def test_info_tells_the_kind_of_each_file(here, capsys):
    for name, word in (("core.safetensors", "core"), ("butterfly.safetensors", "pack")):
        assert run("info", Path("runs") / name) == 0
        assert f"kind             {word}" in capsys.readouterr().out
    assert run("info", "runs/butterfly.onnx") == 0
    assert "category         butterfly" in capsys.readouterr().out


def test_doctor_names_what_is_there(capsys, monkeypatch):
    slow = ("torchvision", "onnxscript", "ray", "pandas", "tables", "sleap_io")  # seconds each
    light = tuple(package for package in diagnosis._PACKAGES if package.module not in slow)
    monkeypatch.setattr(diagnosis, "_PACKAGES", light)
    assert run("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert (states["numpy"], states["torch"]) == ("ok", "ok")
    assert report["best_device"] in ("cpu", "cuda")


def test_data_list_shows_what_is_found_and_its_layout(tmp_path, monkeypatch, capsys):
    (tmp_path / "cups").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cups/a.png")
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("LMK_DATA", str(tmp_path))
    assert run("data", "list") == 0
    names = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["cups", "folder"] in names
    assert "notes" not in [name for name, _ in names]
    assert ["builtin:puppet", "builtin"] in names


def labelled(folder, *points):
    """A folder of six images and a table of `points` in them."""
    folder.mkdir(parents=True)
    header = ["file", *(f"{p}_{axis}" for p in points for axis in "xy")]
    rows = []
    for index in range(6):
        Image.effect_noise((40, 40), 60).convert("RGB").save(folder / f"{index}.png")
        rows.append([f"{index}.png", *(10 + 3 * i + index for i in range(2 * len(points)))])
    with (folder / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def test_train_core_without_data_takes_the_first_pose_set(here, tmp_path, monkeypatch, capsys):
    home = tmp_path / "data"
    labelled(home / "aaa", "nose")
    labelled(home / "people", "l_hip", "r_hip", "r_shoulder")
    monkeypatch.setenv("LMK_DATA", str(home))
    output = tmp_path / "people.safetensors"
    assert run("train-core", "--output", output, *TINY_CORE) == 0
    assert "data: people" in capsys.readouterr().err
    assert run("info", output) == 0
    assert "l_hip, r_hip, r_shoulder" in capsys.readouterr().out


def test_demo_runs_the_whole_chain(tmp_path, capsys, monkeypatch):
    """It is that of the user, but for its size."""
    monkeypatch.setitem(hourglass.WIDTHS, "small", hourglass.WIDTHS["tiny"])
    for name, value in (("IMAGES", 40), ("INPUT_SIZE", 64), ("FILM_FRAMES", 80)):
        monkeypatch.setattr(demo, name, value)
    assert run("demo", "--output", tmp_path / "demo", "--minutes", 0.05) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {file.name for file in files} >= {"core.safetensors", "butterfly.onnx", "overlay.mp4"}
    assert all(file.stat().st_size > 0 for file in files)


# What goes wrong: one line, exit code 2, nothing lost.


def test_an_output_that_exists_asks_for_force(here, capsys, video):
    core = Path("runs/core.safetensors")
    before = core.read_bytes()
    assert "--force" in fails(capsys, "train-core", "--data", "builtin:puppet", *TINY_CORE)
    assert core.read_bytes() == before
    assert "--force" in fails(capsys, "adapt", "--data", "builtin:butterfly", *TINY_ADAPT)
    assert "--force" in fails(capsys, "export")
    assert run("detect", video, "--output", "runs/twice", "--no-overlay") == 0
    assert "--force" in fails(capsys, "detect", video, "--output", "runs/twice", "--no-overlay")
    assert run("detect", video, "--output", "runs/twice", "--no-overlay", "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adapt", "--data", "nowhere"], ["nowhere", "no such folder", "builtin:butterfly"]),
        (["adapt", "--data", "builtin:unicorn"], ["unicorn", "butterfly"]),
        (["adapt"], ["--data"]),
        (
            ["adapt", "--data", "builtin:butterfly", "--landmarks", "1"],
            ["got 1, expected 2 or more"],
        ),
        (["adapt", "--data", "builtin:butterfly", "--core", "no.safetensors"], ["no such file"]),
        (["train-core", "--data", "builtin:puppet", "--input-size", "100"], ["multiple of 64"]),
        (["train-core", "--data", "builtin:puppet", "--batch", "0"], ["--batch", "0"]),
        (["train-core", "--data", "builtin:puppet", "--device", "cuda:9"], ["cuda:9", "--device"]),
        (["train-core", "--data", "builtin:puppet", "--device", "abacus"], ["abacus"]),
        (["export", "no.safetensors"], ["no.safetensors", "no such file"]),
        (["detect", "no.mp4"], ["no.mp4"]),
        (["detect", ".", "--roi", "left"], ["left", "full, center, "]),
        (["info", "runs/butterfly/preview.png"], [".safetensors, .onnx or .engine"]),
        (["evaluate", "--data", "nowhere"], ["no such folder"]),
        (["fly"], ["fly"]),
    ],
)
def test_bad_arguments_are_one_line(here, capsys, arguments, words, tmp_path):
    if arguments[0] in ("adapt", "train-core"):
        arguments = [*arguments, "--output", tmp_path / "x.safetensors"]
    line = fails(capsys, *arguments)
    assert all(word in line for word in words) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["core.safetensors", "butterfly.safetensors", "butterfly.onnx"])
def test_truncated_files_are_named(here, capsys, tmp_path, name):
    broken = tmp_path / name
    broken.write_bytes((here / "runs" / name).read_bytes()[:-1000])
    assert str(broken) in fails(capsys, "info", broken)


def test_an_empty_workspace_says_which_command_is_missing(capsys, tmp_path, monkeypatch, video):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lmk.runtime.model.workspace.ZOO", tmp_path / "zoo")
    assert "lmk export" in fails(capsys, "detect", video)
    assert "lmk adapt" in fails(capsys, "export")
    assert "lmk train-core" in fails(capsys, "adapt", "--data", "builtin:butterfly")


def test_a_broken_file_in_runs_blocks_nothing(here, capsys):
    broken = [Path("runs/aa.safetensors"), Path("runs/zz.safetensors")]
    for path in broken:
        path.write_bytes(b"nothing")
    try:
        assert run("export", "--output", "runs/again.onnx") == 0
    finally:
        for path in [*broken, Path("runs/again.onnx")]:
            path.unlink(missing_ok=True)


def test_a_report_is_not_overwritten_unasked(here, capsys, tmp_path):
    report = tmp_path / "notes.txt"
    report.write_text("mine")
    assert "--force" in fails(capsys, "evaluate", "--data", "builtin:butterfly", "--output", report)
    assert report.read_text() == "mine"


@pytest.mark.parametrize(
    "options",
    [
        ["--batch", "0"],
        ["--images", "-1"],
        ["--ridge", "nan"],
        ["--regressor-images", "0"],
        ["--repeats", "0"],
        ["--crop-margin", "0.5"],
        ["--crop-margin", "2", "--crop", "image"],
        ["--device", "abacus"],
        ["--device", "cuda:9"],
        ["--fit-data", "builtin:butterfly"],
        ["--fit-data", "builtin:puppet"],
    ],
)
def test_measures_need_sensible_options(here, capsys, options, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    few = ["--images", "2", "--threads", "1"] if "--images" not in options else []
    line = fails(capsys, "evaluate", "--data", "builtin:butterfly", *few, *options)
    assert all(word.removeprefix("builtin:") in line for word in options[1:])


@pytest.mark.parametrize("option", [["--width", "full"], ["--input-size", "128"]])
def test_what_the_core_decides_is_not_an_option(here, capsys, tmp_path, option):
    arguments = ["--data", "builtin:butterfly", "--output", tmp_path / "x.safetensors"]
    assert option[0] in fails(capsys, "adapt", *arguments, *option, *TINY_ADAPT)


def test_packs_are_not_written_into_the_data(here, capsys, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    output = tmp_path / "runs/x.safetensors"
    line = fails(capsys, "adapt", "--data", tmp_path, "--output", output, *TINY_ADAPT)
    assert "inside the data" in line


def test_debug_shows_the_traceback(here, capsys):
    assert run("--debug", "export", "no.safetensors") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_a_core_that_can_be_read_and_resumed(here, tmp_path, capsys):
    output = tmp_path / "core.safetensors"
    data = labelled(tmp_path / "people", "l_hip", "r_hip", "r_shoulder")
    options = ["--data", str(data), "--output", str(output), *TINY_CORE]
    options[options.index("--steps") + 1] = "100000"
    command = [sys.executable, "-m", "lmk.cli", "train-core", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=here)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step "):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "go on with --resume" in errors
    assert "interrupted" in errors
    assert run("info", output) == 0
    capsys.readouterr()
    assert "--resume: gain is" in fails(capsys, "train-core", *options, "--resume", "--gain", "0.1")
    options[options.index("100000")] = "3"
    assert run("train-core", *options, "--resume") == 0
