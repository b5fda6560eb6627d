"""`make kill`: end commands by random signals at random moments, go on, compare the bytes.

Of detect, adapt, name and export each is run once undisturbed. Then, TIMES times, one of them gets
one to three signals out of INT, TERM, HUP and KILL, each at a random moment of a run of its own,
some of them twice, and is left to end at last. At fault is: no end after a signal, a traceback, a
run that cannot be gone on with, a file or folder that is missing, left over or not byte for byte
that of the undisturbed run. The same seed draws the same signals. Moments begin where `lmk` has the
signals: what Python says of one that comes while it starts itself is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
SECONDS = 600  # for the longest command, and for the end after a signal
# What differs from run to run: how long it took. Reports and previews tell it too.
CLOCKS = ("seconds", "images_per_second", "elapsed", "header_sha256")
APART = (".html",)


@dataclass
class Job:
    """A command whose files can be compared, and what it is gone on with."""

    words: list[str]
    again: list[str]
    seconds: float = 0.0  # that it takes undisturbed


JOBS = {
    name: Job(shlex.split(words), again.split())
    for name, words, again in (
        (
            "detect",
            "detect film.mp4 --model tiny.onnx --output out --write csv,jsonl,overlay --threads 1",
            "--resume",
        ),
        ("adapt", "adapt --output out/b.safetensors --steps 20 --preview-every 10", "--resume"),
        (
            "name",
            "name tiny.safetensors --annotations marked --output out/n.safetensors",
            "--force",
        ),
        ("export", "export tiny.safetensors --output out/tiny.onnx", "--force"),
    )
}
LEARN = ["--batch", "2", "--threads", "1"]
ADAPT = ["--data", "marked", "--core", "core.safetensors", "--generator-width", "8"]
JOBS["adapt"].words += ADAPT + LEARN
JOBS["name"].words += ["--core", "core.safetensors"]
JOBS["export"].words += ["--core", "core.safetensors"]
INPUTS = ("film.mp4", "marked", "core.safetensors", "tiny.safetensors", "tiny.onnx")


def inputs(here: Path) -> None:
    """A film of 96 frames, twelve annotated images, and a small core, pack and model."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((240, 180))
    with av.open(str(here / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for index in range(96):
            left = 40 + round(30 * np.sin(index / 40))
            picture = coarse.crop((left, 20, left + 160, 140))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    (here / "marked").mkdir()
    lines = ["file,eye_x,eye_y"]
    for index in range(12):
        left, top = 10 + 4 * index, 5 + 3 * index
        coarse.crop((left, top, left + 128, top + 128)).save(here / f"marked/{index}.png")
        lines.append(f"{index}.png,{110 - left},{90 - top}")
    (here / "marked/annotations.csv").write_text("\n".join(lines))
    small = [
        "--width",
        "small",
        "--input-size",
        "64",
        "--output",
        "core.safetensors",
        "--steps",
        "3",
    ]
    for words in (
        ["train-core", "--data", "marked", *small, *LEARN],
        ["adapt", *ADAPT, *LEARN, "--output", "tiny.safetensors", "--steps", "3"],
        ["export", "tiny.safetensors", "--core", "core.safetensors", "--output", "tiny.onnx"],
    ):
        subprocess.run([sys.executable, "-m", "lmk.cli", *words], cwd=here, check=True)


# As `lmk`, but an interrupted detection can go on at every 16th frame.
PROGRAM = """
import os
from lmk.runtime.signals import nothing_begun
with nothing_begun():
    os.close(int(os.environ["STARTED"]))
    from lmk.runtime.pipeline import feed
    feed.CHUNK = 16
    from lmk.cli import main
main()
"""


def start(job: Job, place: Path, more: list[str]) -> subprocess.Popen:
    """The job in a process of its own, which has the signals."""
    command = [sys.executable, "-c", PROGRAM, *job.words, *more]
    ours, its = os.pipe()
    with (place / "said.txt").open("a") as said, os.fdopen(ours) as started:
        process = subprocess.Popen(
            command,
            cwd=place,
            env=os.environ | {"STARTED": str(its)},
            pass_fds=[its],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        os.close(its)
        started.read()  # until it is closed
    return process


def files(place: Path) -> dict[str, object]:
    """What the job has written, without what tells how long it took."""
    found: dict[str, object] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink() or name == "said.txt":
            continue
        if path.is_dir():
            found[name] = "folder"
        elif path.name.startswith("events."):  # its name tells the time and the process
            found[f"{path.parent.name}/events"] = "there"
        elif any(word in path.name for word in APART):
            found[name] = "there"
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as opened:
                header = {key: timeless(json.loads(v)) for key, v in opened.metadata().items()}
                keys = opened.keys()
                tensors = {key: opened.get_tensor(key).tobytes() for key in keys}
            found[name] = (header, tensors)
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_bytes()))
        else:
            found[name] = path.read_bytes()
    return found


def timeless(value: object) -> object:
    """JSON without what differs from run to run, at any depth."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in CLOCKS}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def fresh(here: Path, name: str) -> Path:
    """An empty folder in which the job finds its inputs."""
    place = here / name
    place.mkdir()
    for source in INPUTS:
        (place / source).symlink_to(here / source)
    return place


def attack(job: Job, place: Path, rng: np.random.Generator, whole: dict[str, object]) -> str | None:
    """Signal runs of `job`, let it end, and say what is wrong then, if anything is."""
    more: list[str] = []
    for _ in range(rng.integers(1, 4)):
        moment, sent = rng.uniform(0, 1.1 * job.seconds), SIGNALS[rng.integers(len(SIGNALS))]
        with (place / "said.txt").open("a") as said:
            print(f"--- {sent.name} after {moment:.2f} s", file=said)
        process = start(job, place, more)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(sent)
            if rng.random() < 0.3:
                time.sleep(rng.uniform(0, 0.5))
                process.send_signal(sent)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                return f"hang after {sent.name}"
        more = job.again
    code = start(job, place, more).wait(SECONDS)
    if code and "--resume: no" in (place / "said.txt").read_text().splitlines()[-1]:
        code = start(job, place, ["--force"]).wait(SECONDS)  # none of them had begun
    if code:
        return f"not gone on with: exit {code}"
    said = (place / "said.txt").read_text(errors="replace")
    if "Traceback" in said:
        return "traceback"
    found = files(place)
    if found.keys() != whole.keys():
        lost, extra = sorted(whole.keys() - found.keys()), sorted(found.keys() - whole.keys())
        return f"lost {lost}, left over {extra}"
    differ = [name for name in whole if found[name] != whole[name]]
    return f"differ: {differ}" if differ else None


def campaign(times: int, seed: int, wanted: list[str], kept: Path) -> int:
    """Attack the jobs in turns; return the number of faults."""
    for each in SIGNALS[:3]:  # a shell's background and nohup ignore some, and so would the jobs
        signal.signal(each, signal.SIG_DFL)
    here = Path(tempfile.mkdtemp(prefix="kill-"))
    os.environ |= {"LMK_CACHE": str(here / "cache"), "LMK_DEVICE": "cpu"}
    inputs(here)
    jobs = {name: job for name, job in JOBS.items() if not wanted or name in wanted}
    whole: dict[str, dict[str, object]] = {}
    for name, job in jobs.items():
        place = fresh(here, f"{name}-whole")
        start(job, place, []).wait(SECONDS)  # once for what is only made at first use
        shutil.rmtree(place)
        place = fresh(here, f"{name}-whole")
        began = time.monotonic()
        code = start(job, place, []).wait(SECONDS)
        assert code == 0, (place / "said.txt").read_text()
        job.seconds, whole[name] = time.monotonic() - began, files(place)
    count: Counter[tuple[str, bool]] = Counter()
    rng = np.random.default_rng(seed)
    with suppress(KeyboardInterrupt):  # what was tried until then is told
        for number in range(times):
            name = sorted(jobs)[number % len(jobs)]
            place = fresh(here, f"{name}-{number}")
            wrong = attack(jobs[name], place, rng, whole[name])
            count[name, wrong is None] += 1
            if wrong:
                goal = kept / f"{name}-{seed}-{number}"
                shutil.copytree(place, goal, symlinks=True, dirs_exist_ok=True)
                print(f"{wrong}: {goal}", flush=True)
            shutil.rmtree(place)
    shutil.rmtree(here)
    for name in jobs:
        print(f"{name:8}{count[name, True]:>5} equal{count[name, False]:>5} at fault")
    return sum(count[name, False] for name in jobs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default="", help=",".join(JOBS))
    parser.add_argument("--kept", type=Path, default=Path("runs/kill"), help="cases at fault")
    told = parser.parse_args()
    wanted = [name for name in told.jobs.split(",") if name]
    sys.exit(campaign(told.times, told.seed, wanted, told.kept.resolve()) > 0)
