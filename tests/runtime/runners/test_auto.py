"""What `auto` takes: by a clock of its own, for runners that are only as quick as they say."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import load
from lmk.runtime.model import model_file, probe_crops, read_model
from lmk.runtime.runners import RUNNERS, auto, settle
from lmk.runtime.runners.registry import Package, RunnerEntry

HERE = Package("json", ("numpy",))  # of a module that is there


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Opens entries as quick and as far off as told; counts what was opened."""
    clock, opened = SimpleNamespace(now=0.0), []
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LMK_DEVICE")
    monkeypatch.setattr(auto, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(auto, "_has_gpu", lambda: False)
    monkeypatch.setattr(auto, "cpu_flags", frozenset)

    def entry(device, seconds, off=0.0, error=None, shaky=0.0, **more):
        def open_it(path, threads, batches):
            opened.append(device)
            if error:
                raise UserError(error)
            contract = auto.read_model(path)[1]
            count = contract.num_landmarks
            probes = probe_crops(contract.input_size, auto._PROBES * auto._BATCH)
            calm = {crops.tobytes() for crops in np.split(probes, auto._PROBES)}

            def run(crops):
                clock.now += seconds
                moved = off + shaky * (crops.tobytes() not in calm)
                points = np.full((len(crops), count, 2), 50 + moved, np.float32)
                return points, np.ones((len(crops), count), np.float32)

            runner = SimpleNamespace(contract=contract, close=lambda: opened.append("closed"))
            return _Called(runner, run)

        return RunnerEntry(device, device.title(), open_it, (HERE,), device, (), **more)

    def set_up(*entries):
        monkeypatch.setattr(auto, "RUNNERS", list(entries))
        opened.clear()

    return SimpleNamespace(entry=entry, set_up=set_up, opened=opened, cache=tmp_path / "cache")


class _Called:
    def __init__(self, facts, run):
        self.contract, self.close, self._run = facts.contract, facts.close, run

    def __call__(self, crops):
        return self._run(crops)


def test_the_quickest_that_finds_the_same_is_taken(world, model_path):
    world.set_up(
        world.entry("plain", 0.010),
        world.entry("quick", 0.004, off=0.02),
        world.entry("wrong", 0.001, off=0.2),
        world.entry("broken", 0.001, error="broken: does not import (no such thing); mend it"),
        world.entry("elsewhere", 0.001, place="cuda"),
    )
    choice = auto.choose(model_path)
    assert (choice.device, choice.model) == ("quick", model_path)
    assert "2.5 x as fast as Plain, about 0.028 px from it" in choice.words
    assert "Wrong" in choice.words and "a drift of 0.28" in choice.words
    assert "broken: does not import (no such thing)" in choice.words
    assert world.opened.count("closed") == 3


def test_drifts_are_told_as_on_pictures(world, model_path):
    """Where noise moves landmarks by 1 px, by 0.1 on pictures, rounding may move them alike."""
    world.set_up(
        world.entry("plain", 0.010, shaky=1 / np.sqrt(2)),
        world.entry("wrong", 0.001, off=2.0),
        world.entry("quick", 0.004, off=0.5 / np.sqrt(2)),
    )
    choice = auto.choose(model_path)
    assert "2.5 x as fast as Plain, about 0.05 px from it" in choice.words
    assert "Wrong" in choice.words and "a drift of 0.28" in choice.words


@pytest.mark.parametrize("seconds", [0.0099, 0.02])
def test_what_is_hardly_quicker_is_left(world, model_path, seconds):
    world.set_up(world.entry("plain", 0.01), world.entry("other", seconds))
    choice = auto.choose(model_path)
    assert choice.device == "plain" and f"{0.01 / seconds:.2f} x as fast" in choice.words


def test_it_is_decided_once_for_a_model_a_machine_and_its_libraries(
    world, model_path, make_model, monkeypatch
):
    world.set_up(world.entry("plain", 0.010), world.entry("quick", 0.004))
    first = auto.choose(model_path)
    world.set_up(world.entry("plain", 0.010), world.entry("quick", 0.040))  # a busy moment
    assert auto.choose(model_path) == first and not world.opened
    assert auto.choose(make_model(pack_sha256="b" * 64)).device == "plain"
    assert auto.choose(model_path, threads=1).device == "plain"
    monkeypatch.setattr(auto.metadata, "version", lambda name: "99")
    assert auto.choose(model_path).device == "plain"


def test_a_choice_holds_in_every_folder(world, model_path, monkeypatch, tmp_path):
    world.set_up(world.entry("plain", 0.010), world.entry("quick", 0.004))
    monkeypatch.chdir(model_path.parent)
    auto.choose(Path(model_path.name))
    monkeypatch.chdir(tmp_path)
    assert auto.choose(model_path).model == model_path.resolve() and "quick" in world.opened


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"for": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_choice_is_made_anew(world, model_path, damage, capsys):
    world.set_up(world.entry("plain", 0.010), world.entry("quick", 0.004))
    first = auto.choose(model_path)
    (kept,) = (world.cache / "auto").glob("*.json")
    kept.write_bytes(damage)
    assert auto.choose(model_path) == first and world.opened.count("quick") == 2
    assert "is damaged" in capsys.readouterr().err


def test_without_a_place_to_keep_it_a_choice_is_for_one_run(
    world, model_path, monkeypatch, tmp_path, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "file"))
    world.set_up(world.entry("plain", 0.010), world.entry("quick", 0.004))
    assert auto.choose(model_path).device == "quick"
    assert "for this run alone" in capsys.readouterr().err


def test_of_two_that_decide_at_once_one_does(world, model_path):
    world.set_up(world.entry("plain", 0.010), world.entry("quick", 0.004))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(auto.choose(model_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [choice.device for choice in found] == ["quick"] * 4 and world.opened.count("quick") == 1


def test_files_of_the_same_pack_in_fewer_bits_are_tried(world, make_model):
    model = make_model()
    for precision, sha in (("int8", {}), ("fp16", {"pack_sha256": "b" * 64})):
        other = make_model(precision=precision, **sha)
        other.rename(model.with_name(f"{model.stem}-{precision}.onnx"))
    model.with_name(f"{model.stem}-fp8.onnx").write_bytes(b"someone else's")
    world.set_up(
        world.entry("plain", 0.010, precisions=("fp32",)),
        world.entry("quick", 0.004, precisions=("fp16", "int8", "fp8")),
    )
    choice = auto.choose(model)
    assert (choice.model.name, choice.device) == (f"{model.stem}-int8.onnx", "quick")
    assert world.opened.count("quick") == 1


def test_a_processor_of_bfloat16_is_offered_the_pack_in_it(world, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(auto, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    model = model_file("cats")
    world.set_up(
        world.entry("plain", 0.010, precisions=("fp32",)),
        world.entry("quick", 0.004, precisions=("bf16",)),
    )
    choice = auto.choose(model)
    made, plain = (read_model(path)[1] for path in (choice.model, model))
    assert (made.precision, made.pack_sha256) == ("bf16", plain.pack_sha256)
    assert [path.name for path in model.parent.glob("*bf16*")] == []  # it is no file of the user's


def test_a_gpu_is_taken_where_there_is_one(world, model_path, monkeypatch):
    monkeypatch.setattr(auto, "_has_gpu", lambda: True)
    world.set_up(
        world.entry("plain", 0.010),
        world.entry("lost", 0.001, error="cuda: no kernel; x", place="cuda"),
        world.entry("gpu", 0.001, off=0.01, place="cuda"),
    )
    assert auto.choose(model_path).device == "gpu"


def test_a_runner_alone_is_not_timed(world, model_path):
    missing = Package("lmk_no_such_module.inner", ("numpy",))
    entry = world.entry("other", 0.001)
    world.set_up(world.entry("plain", 0.01), RunnerEntry(**vars(entry) | {"packages": (missing,)}))
    assert auto.choose(model_path).device == "plain" and not world.opened


def test_what_was_chosen_is_said_and_loaded(world, model_path, monkeypatch, capsys):
    monkeypatch.setattr(auto, "RUNNERS", RUNNERS[:1])
    with load(model_path) as landmarker:
        assert landmarker.device == "cpu"
    assert capsys.readouterr().err == "device: cpu (nothing else here runs it)\n"
    monkeypatch.setenv("LMK_DEVICE", "openvino")
    assert settle(model_path) == settle(model_path, "auto") == (model_path, "openvino")
    assert settle(model_path, "cpu") == (model_path, "cpu") and not capsys.readouterr().err
