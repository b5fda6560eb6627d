"""engine: real engines of TensorRT for RTX, which needs no GPU to build them."""

import os
import signal
import warnings
from dataclasses import replace

import onnx
import pytest

from lmk.export.engine import place
from lmk.export.engine.build import PERCENT, export_engine
from lmk.export.engine.options import EngineOptions
from lmk.export.graph.trace import write_onnx
from lmk.runtime.errors import UserError
from lmk.runtime.model import read_model, wire
from lmk.runtime.model.engine_file import read_engine, read_info
from lmk.runtime.runners import Gpu

trt = pytest.importorskip("tensorrt_rtx")
OPTIONS = EngineOptions("tensorrt_rtx", batches=(1,))


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """No GPU, and a cache of the test's own."""
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(place, "local_gpu", lambda: None)


@pytest.fixture(scope="module")
def files(typed_models, exported, tmp_path_factory):
    """An ONNX file of ours in each precision."""
    folder = tmp_path_factory.mktemp("typed")
    for name, model in typed_models.items():
        write_onnx(model, replace(exported[1], precision=name), folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in typed_models}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_engine_is_what_was_asked(files, tmp_path, precision):
    seen = []
    options = replace(OPTIONS, batches=(2, 2), workspace_mib=512, level=1)
    found = export_engine(files[precision], tmp_path / "a.engine", options, report=seen.append)
    info, plan = read_engine(tmp_path / "a.engine")
    assert (found.info, found.plan) == (info, plan)
    assert info.contract == read_model(files[precision])[1]
    assert info.recipe.precision == precision == max(info.convolutions, key=info.convolutions.get)
    assert info.recipe.batches == (2,) and info.recipe.library_version == trt.__version__
    assert (info.recipe.workspace_mib, info.recipe.level) == (512, 1)
    assert not info.recipe.refittable and info.recipe.gpu == "" and info.kernels == {}
    assert seen == sorted(seen) and seen[-1] == PERCENT


def test_second_time_comes_from_the_cache_and_each_batch_has_a_profile(files, tmp_path):
    def export(name, options=OPTIONS, precision="fp32"):
        return export_engine(files[precision], tmp_path / f"{name}.engine", options)

    first, second = export("a"), export("b")
    assert (first.reason, second.reason) == ("no engine of this pack yet", "")
    assert (tmp_path / "a.engine").read_bytes() == (tmp_path / "b.engine").read_bytes()
    more = export("c", replace(OPTIONS, batches=(4, 1)))
    assert more.info.recipe.batches == (1, 4)
    assert more.info.plan_bytes > 1.5 * first.info.plan_bytes
    assert more.reason == "no engine for batches of 1, 4 yet"
    targets = export("d", replace(OPTIONS, targets=("12.0", "7.5", "8.6")), "fp16")
    assert targets.reason == "no engine for precision fp16 yet"
    assert read_info(tmp_path / "d.engine").recipe.targets == ("7.5", "8.6", "12.0")


@pytest.mark.parametrize("precision, target", [("fp8", "8.6"), ("bf16", "7.5")])
def test_precision_that_a_target_lacks(files, tmp_path, precision, target):
    options = replace(OPTIONS, targets=("12.0", target))
    with pytest.raises(UserError, match=f"precision {precision}: got compute capability {target}"):
        export_engine(files[precision], tmp_path / "a.engine", options)
    assert not (tmp_path / "a.engine").exists()


def test_tensorrts_words_are_in_the_error(files, tmp_path, monkeypatch):
    """fp8 for a GPU without: TensorRT itself refuses what our table would have."""
    monkeypatch.setattr(place, "check_precision", lambda precision, capabilities: None)
    options = replace(OPTIONS, targets=("8.6",))
    with pytest.raises(UserError, match=r"cannot build this engine: .*sm86.*; see `lmk doctor`"):
        export_engine(files["fp8"], tmp_path / "a.engine", options)
    assert not (tmp_path / "a.engine").exists()
    assert list((tmp_path / "cache" / "engines").glob("*.engine")) == []


def test_graph_that_tensorrt_cannot_take(onnx_model, exported, tmp_path):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(onnx_model)
    del wrong.graph.initializer[:]
    path = tmp_path / "a.onnx"
    onnx.helper.set_model_props(wrong, exported[1].to_metadata())
    path.write_bytes(wire.seal(wrong.SerializeToString()))
    with pytest.raises(UserError, match="cannot take this ONNX model: "):
        export_engine(path, tmp_path / "a.engine", OPTIONS)


def test_graph_of_another_precision_than_its_metadata(onnx_model, exported, tmp_path):
    write_onnx(onnx_model, replace(exported[1], precision="fp16"), tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"got convolutions of 56 fp32 .*an ONNX file in fp16"):
        export_engine(tmp_path / "a.onnx", tmp_path / "a.engine", OPTIONS)
    assert not (tmp_path / "a.engine").exists()


def test_onnx_that_is_not_ours(onnx_model, exported, tmp_path):
    path, engine = tmp_path / "a.onnx", tmp_path / "a.engine"
    with pytest.raises(UserError, match="no such file, expected a model made by"):
        export_engine(path, engine, OPTIONS)
    onnx.save(onnx_model, path)
    with pytest.raises(UserError, match=r"a\.onnx: not made by `lmk export`: got no lmk metadata"):
        export_engine(path, engine, OPTIONS)
    stored = exported[1].to_metadata()
    del stored["lmk.crop_scale"]
    model = onnx.load(path)
    onnx.helper.set_model_props(model, stored)
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"metadata key 'lmk\.crop_scale' is missing"):
        export_engine(path, engine, OPTIONS)


def test_existing_output_needs_force(files, tmp_path):
    output = tmp_path / "a.engine"
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="--force"):
        export_engine(files["fp32"], output, OPTIONS)
    assert output.read_bytes() == b"mine"
    export_engine(files["fp32"], output, OPTIONS, force=True)
    read_engine(output)


def test_ctrl_c_cancels_the_build_and_leaves_nothing(files, tmp_path):
    pressed = []

    def press(percent):
        if not pressed:
            pressed.append(percent)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        export_engine(files["fp32"], tmp_path / "a.engine", OPTIONS, report=press)
    assert not (tmp_path / "a.engine").exists()
    assert list((tmp_path / "cache" / "engines").glob("*.engine")) == []
    assert pressed and pressed[0] < PERCENT
    export_engine(files["fp32"], tmp_path / "a.engine", OPTIONS)  # and no lock is left


def test_tensorrt_takes_the_same_path(files, tmp_path, monkeypatch):
    """With the module of RTX in its place: names, targets and the cache of timings are its own."""
    monkeypatch.setattr(place, "module", lambda library: trt)
    monkeypatch.setattr(place, "local_gpu", lambda: Gpu("NVIDIA L4", (8, 9)))
    options = replace(OPTIONS, library="tensorrt", refittable=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # timings, in RTX
        export_engine(files["fp32"], tmp_path / "a.engine", options)
        (timings,) = (tmp_path / "cache" / "engines").glob("timings-*")
        timings.write_bytes(b"damaged")
        more = replace(options, batches=(2,))
        export_engine(files["fp32"], tmp_path / "b.engine", more)
    assert timings.name == f"timings-tensorrt-{trt.__version__}" and timings.stat().st_size > 7
    assert read_info(tmp_path / "a.engine").recipe.place == "NVIDIA L4 (compute capability 8.9)"


def test_command_builds_of_an_onnx_file(lmk, files, tmp_path, capsys):
    output = tmp_path / "pots.engine"
    arguments = ("export", files["fp16"], "--engine", "rtx", "--batches", "1", "--output", output)
    assert lmk(*arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert "engine: fp16, TensorRT for RTX" in printed.err
    assert "(no engine of this pack yet)" in printed.err
    assert "convolutions: 56 fp16 (100 %)" in printed.err
    assert lmk(*arguments, "--force") == 0
    assert "MB, cached" in capsys.readouterr().err


def test_command_takes_the_onnx_file_of_this_pack_again(
    lmk, pack_path, core_path, same_trace, tmp_path, capsys
):
    flags = ("--core", core_path, "--output", tmp_path / "pots.engine", "--batches", "1")
    assert lmk("export", pack_path, "--engine", "rtx", *flags) == 0
    assert "verified: eager = ONNX Runtime" in capsys.readouterr().err
    (tmp_path / "pots.engine").unlink()
    assert lmk("export", pack_path, "--engine", "rtx", *flags) == 0
    printed = capsys.readouterr().err
    assert f"onnx: {tmp_path / 'pots.onnx'}, exported before from this pack" in printed
    assert "verified" not in printed and "cached" in printed


def test_command_refuses_before_it_exports(lmk, pack_path, core_path, tmp_path, capsys):
    flags = ("--core", core_path, "--output", tmp_path / "pots.engine", "--targets", "9.0")
    assert lmk("export", pack_path, "--engine", "rtx", *flags) == 2
    assert "lmk: targets: got '9.0', expected some of 7.5" in capsys.readouterr().err
    assert not (tmp_path / "pots.onnx").exists()
