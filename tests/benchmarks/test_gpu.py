"""The script for a borrowed GPU, dry: three small steps of everything, in interrupted pieces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lmk.benchmarks.gpu import train_zoo
from lmk.runtime.weights import read_header
from lmk.train.category import load_pack


def call(folder, *more: str) -> str:
    arguments = [
        "--work",
        str(folder / "work"),
        "--output",
        str(folder / "out"),
        "--dry-run",
        *more,
    ]
    result = CliRunner().invoke(train_zoo.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()[-1]


def test_pieces_go_on_where_the_last_one_stopped(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_zoo, "adapt", interrupted)
        assert "call again" in call(tmp_path)
    core = tmp_path / "out/core.safetensors"
    before = core.read_bytes()
    assert call(tmp_path) == "all done"
    assert core.read_bytes() == before

    pack = tmp_path / "out/butterflies.safetensors"
    model, header = load_pack(pack, core)
    assert header["step"] == 3
    assert header["core_sha256"] == read_header(core)["sha256"]
    report = json.loads((tmp_path / "out/zoo.json").read_text())
    assert np.isfinite(report["butterflies"]["consistency_px"])
    assert report["machine"]["versions"]["torch"]
    assert Image.open(tmp_path / "out/butterflies.png").size == (8 * 64, 3 * 64)


@pytest.mark.gpu
def test_dry_run_on_the_gpu(tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert call(tmp_path) == "all done"
