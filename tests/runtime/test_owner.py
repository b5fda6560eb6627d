"""One owner of a place at a time; what it was made of has to stay the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.owner import Owned, check_same, listing


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "new" / "out"
    with Owned(place):
        with pytest.raises(UserError, match=rf"out: is being written by process {os.getpid()} on"):
            Owned(place)
        Owned(tmp_path / "other").close()
    with Owned(place):
        pass
    assert not list(tmp_path.iterdir())  # neither a lock nor the folder it stood in


def test_a_dead_owner_owns_nothing(tmp_path: Path) -> None:
    die = "import os, sys, pathlib; from lmk.runtime.owner import Owned\n"
    die += "owned = Owned(pathlib.Path(sys.argv[1])); print('has it', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", die, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"has it\n"
        with pytest.raises(UserError, match=f"by process {other.pid} on .* since 2"):
            Owned(tmp_path / "out")
        other.kill()
    Owned(tmp_path / "out").close()


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path: Path) -> None:
    left = [".b.0123abcd.safetensors", ".b.0123abcd.html", "b/.state.0123abcd.safetensors"]
    left += ["out/.landmarks.0123abcd.csv", "out/.overlay.0123abcd.mp4"]
    kept = [".b.0123abcd.onnx", ".c.0123abcd.safetensors", "b/.mine.csv", "out/.a.0123abcd.csv"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for place in ("b.safetensors", "out"):
        Owned(tmp_path / place).close()
    found = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()}
    assert found == set(kept)


def test_every_difference_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    (tmp_path / "broken").symlink_to("nowhere")
    files = sorted(tmp_path.iterdir())
    was = {"model": "m", "images": listing(files, tmp_path)}
    assert was["images"]["broken"] == []
    check_same(tmp_path, was, {"model": "m", "images": listing(files, tmp_path)})
    with pytest.raises(UserError, match="model: got n, expected m as in the run before; resume"):
        check_same(tmp_path, was, was | {"model": "n"})
    with pytest.raises(UserError, match="roi: got full, expected None"):
        check_same(tmp_path, was, was | {"roi": "full"})
    (tmp_path / "b").write_text("longer")
    with pytest.raises(UserError, match="images: b was changed, expected them as they were"):
        check_same(tmp_path, was, {"model": "m", "images": listing(files, tmp_path)})
    (tmp_path / "b").rename(tmp_path / "d")
    with pytest.raises(UserError, match=r"images: b is gone \(one of 2 that differ\)"):
        now = listing(sorted(tmp_path.iterdir()), tmp_path)
        check_same(tmp_path, was, {"model": "m", "images": now})
    with pytest.raises(UserError, match="images: a was not there before"):
        check_same(tmp_path, {"images": {}}, {"images": {"a": [1, 2]}})
