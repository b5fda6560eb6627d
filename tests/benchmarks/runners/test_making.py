"""Engines built twice, other categories put in: who is asked, in which cache."""

import os
from types import SimpleNamespace

import pytest

from lmk.benchmarks.runners import making
from lmk.benchmarks.runners import subject as subject_module
from lmk.benchmarks.runners.making import _median, refit, switch
from lmk.benchmarks.runners.subject import build_twice, open_subject
from lmk.runtime.errors import UserError
from lmk.runtime.model.probe import probe_crops


def test_engine_is_built_in_an_empty_cache_and_taken_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LMK_CACHE", "the user's")
    asked = []

    def export(onnx, output, options, force):
        asked.append((os.environ["LMK_CACHE"], options.library, options.batches))
        output.write_bytes(b"engine")

    monkeypatch.setattr(subject_module, "export_engine", export)
    found = build_twice(tmp_path / "a.onnx", tmp_path / "a.engine", "rtx", (1, 8), tmp_path / "c")
    assert asked == [(str(tmp_path / "c"), "tensorrt_rtx", (1, 8))] * 2
    assert set(found) == {"cold_s", "cached_s", "bytes"} and found["bytes"] == 6
    assert os.environ["LMK_CACHE"] == "the user's"


def test_cache_is_put_back_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.delenv("LMK_CACHE", raising=False)

    def export(*given, force):
        raise UserError("no library")

    monkeypatch.setattr(subject_module, "export_engine", export)
    with pytest.raises(UserError, match="no library"):
        build_twice(tmp_path / "a.onnx", tmp_path / "a.engine", "trt", (1,), tmp_path)
    assert "LMK_CACHE" not in os.environ


def test_what_is_quick_is_measured_more_than_once(monkeypatch):
    took = iter([12.0, 1.0, 5.0, 3.0])
    monkeypatch.setattr(making, "seconds_of", lambda call: next(took))
    assert _median(lambda: None, 3) == 12.0
    assert _median(lambda: None, 3) == 3.0


def test_no_pack_no_switch(exported_detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subject = open_subject(exported_detector, None, tmp_path)
    with pytest.raises(UserError, match="^got no pack of the model"):
        switch(subject, probe_crops(64, 1), 1)


def test_refit_needs_another_pack_of_the_core(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subject = open_subject(detector, None, tmp_path)
    with pytest.raises(UserError, match="^got no other pack of its core"):
        refit(subject, tmp_path / "a.engine", probe_crops(64, 1), 9.0)


def test_refit_puts_another_category_in(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subject, done = open_subject(detector, None, tmp_path), []

    class Engine(SimpleNamespace):
        def __init__(self, path):
            super().__init__(path=path)

        def __enter__(self):
            return done.append

        def __exit__(self, *failure):
            pass

    monkeypatch.setattr("lmk.benchmarks.runners.making.TrtRunner", Engine)
    monkeypatch.setattr(
        "lmk.benchmarks.runners.making.swap", lambda runner, pack: done.append(pack)
    )
    monkeypatch.setattr(making, "_other_pack", lambda subject: detector)
    found = refit(subject, tmp_path / "a.engine", probe_crops(64, 1), 9.0)
    assert done[0] == detector and len(done) == 2  # put in, then run
    assert found["rebuild_s"] == 9.0 and found["times"] > 0 and found["refit_s"] >= 0
