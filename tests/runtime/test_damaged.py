"""A hundred damaged videos and images: frames or one line of an error, never a crash or a hang."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.detect.tasks import Wanted, folders_of, opener
from lmk.runtime.errors import UserError
from lmk.runtime.pipeline.run import detect_all
from lmk.runtime.regions.choose import RegionMaker

VIDEOS = {
    "v.mp4": dict(coding={"g": "6"}),
    "v.mkv": dict(coding={"x264-params": "tff=1:keyint=6"}),
    "v.avi": dict(codec="mpeg4", coding={"g": "6", "bf": "2"}),
    "v.webm": dict(codec="libvpx", coding={"g": "6", "deadline": "realtime"}),
    "v.ts": dict(codec="mpeg2video", coding={"g": "6"}),
}
IMAGES = ("i.jpg", "i.png", "i.webp", "i.tiff", "i.gif")
EACH = 10
SECONDS = 120  # far beyond what all of them take: what lasts longer hangs

# Names each file before it is read: after a crash the last one is to blame.
READER = """
import json, sys
from lmk.runtime.errors import UserError
from lmk.runtime.sources import open_source

for path in sys.argv[1:]:
    print("\\n" + path, end=" ", flush=True)
    try:
        with open_source(path) as source:
            numbers = [frame.index for frame in source]
        with open_source(path) as source:
            source.resume_after(len(numbers) // 2)
            rest = [frame.index for frame in source]
        print(json.dumps([numbers, rest]), end="")
    except UserError as error:
        print(json.dumps(str(error)), end="")
"""


def _damage(data, rng):
    """Truncated, or with bytes changed at the start, anywhere or in a row, or bytes cut out."""
    data, kind = bytearray(data), rng.integers(5)
    if kind == 0:
        return bytes(data[: rng.integers(1, len(data))])
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 400))
    if kind == 1:
        del data[start : start + length]
    elif kind == 2:
        data[start : start + length] = rng.bytes(length)
    else:
        for place in rng.integers(0, len(data) if kind == 3 else min(300, len(data)), 8):
            data[place] = rng.integers(256)
    return bytes(data)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, write_video):
    """Paths of EACH damaged files of every kind."""
    folder, rng = tmp_path_factory.mktemp("damaged"), np.random.default_rng(6)
    pictures = list(rng.integers(0, 256, (12, 32, 48, 3), np.uint8))
    for name, how in VIDEOS.items():
        write_video(folder / name, pictures, **how)
    for name in IMAGES:
        Image.fromarray(pictures[0]).save(folder / name)
    paths = []
    for whole in (folder / name for name in (*VIDEOS, *IMAGES)):
        for number in range(EACH):
            paths.append(whole.with_stem(f"{whole.suffix[1:]}-{number}"))
            paths[-1].write_bytes(_damage(whole.read_bytes(), rng))
    return paths


def test_damaged_files_give_frames_or_one_line(damaged):
    command = [sys.executable, "-c", READER, *map(str, damaged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    lines = done.stdout.split("\n")[1:]
    assert done.returncode == 0, f"{lines[-1:]} {done.stderr[-2000:]}"
    outcomes = [json.loads(line.split(" ", 1)[1]) for line in lines]
    assert len(outcomes) == len(damaged) == 100
    errors = [outcome for outcome in outcomes if isinstance(outcome, str)]
    read = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert all(error and "\n" not in error for error in errors)
    for numbers, rest in read:
        assert numbers == sorted(set(numbers)) and all(n > len(numbers) // 2 for n in rest)
    assert 20 < len(errors) < 80  # the damage is neither too weak nor too strong to tell


def test_no_neighbour_of_a_damaged_file_is_lost(tmp_path, damaged, landmarker, blob_video):
    """All hundred and a whole video after every ninth, in one `detect_all`."""
    whole, specs = tmp_path / "in", []
    whole.mkdir()
    for number, path in enumerate(damaged):
        specs.append(str(path))
        if number % 9 == 0:
            shutil.copy(blob_video[0], whole / f"whole{number}.mp4")
            specs.append(str(whole / f"whole{number}.mp4"))
    wanted = Wanted(formats=("csv", "overlay", "jsonl"))
    regions = RegionMaker(wanted.where, landmarker)
    folders = folders_of(specs, tmp_path / "out")
    tasks = [
        (spec, opener(spec, folder, landmarker, wanted, regions))
        for spec, folder in zip(specs, folders, strict=True)
    ]
    outcomes = {outcome.name: outcome for outcome in detect_all(tasks, landmarker, 4, 3)}
    assert sorted(outcomes) == sorted(specs)
    files = {}
    for spec, folder in zip(specs, folders, strict=True):
        outcome = outcomes[spec]
        if spec.startswith(str(whole)):
            assert (outcome.summary.frames, outcome.summary.skipped) == (24, [])
            rows = (folder / "landmarks.csv").read_text().replace(Path(spec).name, "")
            files.setdefault(rows, []).append((folder / "overlay.mp4").read_bytes())
        elif outcome.summary is None:
            assert isinstance(outcome.error, UserError) and not folder.exists()
        else:
            assert (folder / "landmarks.jsonl").read_text().count("\n") == outcome.summary.frames
    [overlays] = files.values()  # all whole ones have the same rows
    assert len(overlays) == 12 and len(set(overlays)) == 1
