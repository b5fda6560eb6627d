"""swap: one engine for several categories, each with the numbers of its own ONNX model."""

import csv
import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import lmk
from lmk.runtime.detect.command import detect_command
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import Landmarker
from lmk.runtime.model import probe, workspace
from lmk.runtime.model.composition import compose_file
from lmk.runtime.runners.gpu_open import open_device
from lmk.runtime.runners.open import open_engine, swap
from lmk.runtime.runners.ort import OrtRunner
from lmk.runtime.runners.trt import TrtRunner

SIDE = 64


@pytest.fixture
def cats(shipped):
    """Packs of cats and shoes are shipped, and cats.onnx is made; gives its contract."""
    for seed, name in enumerate(("cats", "shoes")):
        more = {"category": name, "crop_scale": 1.25 + seed, "landmark_names": [*f"{seed}ab"]}
        shipped(workspace.ZOO / f"{name}.safetensors", seed, **more)
    return compose_file(workspace.ZOO / "cats.safetensors", Path("cats.onnx"))


@pytest.fixture
def toys(library, cats, monkeypatch):
    """Return a function that writes cats.engine, of the stand-in with the toy network."""
    monkeypatch.setattr(library, "SIDE", SIDE)
    monkeypatch.setattr(library, "read_model", lambda model: partial(probe.run_onnx, model))

    def write(path=Path("runs/cats.engine"), refittable=True, **contract):
        path.parent.mkdir(exist_ok=True)
        return library.write_file(path, vars(cats) | contract, refittable=refittable)

    return write


@pytest.fixture
def crops():
    return np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)


def _is(landmarker, name, crops, rtol=1e-6):
    """Whether it finds what the category's own model does, under its names and with its margin."""
    model = Path(f"{name}.onnx")
    own = compose_file(workspace.ZOO / f"{name}.safetensors", model)
    with OrtRunner(model, threads=1) as runner:
        for given, expected in zip(landmarker.runner(crops), runner(crops), strict=True):
            np.testing.assert_allclose(given, expected, rtol)
    given = dataclasses.replace(landmarker.contract, drift={}, versions={})
    return given == dataclasses.replace(own, drift={}, versions={})


def test_cats_to_shoes_to_cats(toys, crops, capsys):
    with lmk.load("shoes", engine=toys()) as landmarker:
        assert _is(landmarker, "shoes", crops)
        assert landmarker.names == ("1", "a", "b") and "'shoes'" in repr(landmarker)
        wide = landmarker.crop(crops[0], (20, 20, 10, 10))
        landmarker.switch("cats")
        assert _is(landmarker, "cats", crops) and landmarker.names == ("0", "a", "b")
        assert not np.array_equal(wide, landmarker.crop(crops[0], (20, 20, 10, 10)))
        landmarker.switch(workspace.ZOO / "shoes.safetensors")
        assert _is(landmarker, "shoes", crops)
    said = capsys.readouterr().err
    assert said.count("engine: now with the weights of") == 3 and "its probe within" in said


def test_its_own_category_needs_no_refit(toys, library, crops, capsys):
    with lmk.load("cats", engine=toys(refittable=False)) as landmarker:
        assert library.engines[-1]._find is library.find
        assert landmarker.contract.category == "cats"
    assert capsys.readouterr().err == ""


def test_a_pack_without_a_probe_is_unchecked(toys, shipped, capsys):
    shipped(workspace.ZOO / "cups.safetensors", 5, probed=False, category="cups")
    open_engine(toys(), "cups").close()
    assert "cups.safetensors (unchecked: it has no probe)" in capsys.readouterr().err


def _of_another_core(shipped, toys):
    return toys(core_sha256="d" * 64)


def _of_more_landmarks(shipped, toys):
    more = {"network": {"num_landmarks": 4, "width": 16, "input_size": SIDE}}
    more |= {"landmark_names": ["a", "b", "c", "d"]}
    shipped(workspace.ZOO / "shoes.safetensors", 1, probed=False, **more)
    return toys()


def _of_larger_crops(shipped, toys):
    network = {"num_landmarks": 3, "width": 16, "input_size": 128}
    shipped(workspace.ZOO / "shoes.safetensors", 1, probed=False, network=network)
    return toys()


def _with_nan(shipped, toys):
    shipped(
        workspace.ZOO / "shoes.safetensors", 1, edit=lambda pack: pack["head.bias"].fill(np.nan)
    )
    return toys()


def _of_another_probe(shipped, toys):
    shown = {"crops": 4, "seed": 0, "landmarks": np.ones((4, 3, 2)).tolist()}
    shown["scores"] = np.zeros((4, 3)).tolist()
    shipped(workspace.ZOO / "shoes.safetensors", 1, probed=False, probe=shown)
    return toys()


REFUSED = {
    "core": (
        _of_another_core,
        r"cats.engine: refit to 'shoes': got core_sha256 .* expected d+",
    ),
    "landmarks": (_of_more_landmarks, "got num_landmarks 4, expected 3; export that pack"),
    "input size": (_of_larger_crops, "got input_size 128, expected 64; export that pack"),
    "nan": (_with_nan, r"shoes\.safetensors: tensor 'head\.bias' holds NaN"),
    "probe": (_of_another_probe, r"cats\.engine: refit to .* got a drift of .* \(max\), expected"),
    "fixed": (
        lambda shipped, toys: toys(refittable=False),
        "weights are fixed, .*engine rtx --refit`",
    ),
    "int8": (
        lambda shipped, toys: toys(precision="int8"),
        "engine in int8, whose scales are those of",
    ),
    "fp16": (
        lambda shipped, toys: toys(precision="fp16"),
        r"no fp16 template .* `python -m lmk\.export\.graph\.template --width 16 --input-size 64 "
        "--landmarks 3 --precision fp16 --output runs`",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(toys, shipped, gpu, library, make, message):
    engine = make(shipped, toys)
    if "fixed" in message:
        library.ICudaEngine.refittable = False
    with pytest.raises(UserError, match=message):
        open_engine(engine, "shoes")
    assert not gpu.live


def test_a_swap_that_is_refused_changes_nothing(toys, shipped, crops):
    with Landmarker(open_engine(toys(), "shoes")) as landmarker:
        shipped(workspace.ZOO / "cups.safetensors", 5, core_sha256="d" * 64)
        for bad in ("cups", "nobody"):
            with pytest.raises(UserError):
                swap(landmarker.runner, bad)
        assert _is(landmarker, "shoes", crops)


def test_what_is_no_category(toys, model_path):
    engine = toys()
    with pytest.raises(UserError, match="got 'cups', .* expected one of: cats, shoes;"):
        lmk.load("cups", engine=engine)
    with pytest.raises(UserError, match="blob.onnx: got a model, expected a category or its pack"):
        lmk.load(model_path, engine=engine)
    with pytest.raises(
        UserError, match=r"core\.safetensors: got a core .*, expected a category pa"
    ):
        lmk.load(workspace.ZOO / "core.safetensors", engine=engine)
    with pytest.raises(UserError, match="cats.engine: got device 'cpu', expected cuda"):
        lmk.load("shoes", device="cpu", engine=engine)


def test_only_an_engine_can_switch(toys, landmarker):
    with pytest.raises(UserError, match="CPUExecutionProvider: cannot change to 'shoes', expected"):
        landmarker.switch("shoes")


def test_command(toys, blob_image):
    Image.fromarray(blob_image(64, 64, 30, 30)).save("a.png")
    line = ["a.png", "--engine", str(toys()), "--output", "out"]
    done = CliRunner().invoke(detect_command, [*line, "--model", "shoes"])
    assert done.exit_code == 0, done.output
    with open(next(Path("out").glob("*.csv"))) as file:
        assert {"1_x", "a_x", "b_x"} <= set(next(csv.reader(file)))
    with pytest.raises(UserError, match=r"cats\.engine: got no category to find with it; name one"):
        CliRunner().invoke(detect_command, line, catch_exceptions=False)


@pytest.mark.gpu
@pytest.mark.parametrize("library_name", ["tensorrt", "tensorrt_rtx"])
def test_a_real_engine(cats, crops, tmp_path, monkeypatch, library_name):
    """Convolutions and a batch-norm, whose weights an engine has in another form."""
    pytest.importorskip(library_name, exc_type=ImportError)
    try:
        open_device()
    except UserError as error:
        pytest.skip(str(error)[:60])
    from lmk.export.engine.build import export_engine
    from lmk.export.engine.options import EngineOptions

    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    engine = Path("runs/cats.engine")
    options = EngineOptions(library_name, (1, 4), refittable=True)
    try:
        export_engine(Path("cats.onnx"), engine, options)
        TrtRunner(engine).close()
    except UserError as error:
        if library_name == "tensorrt_rtx":  # its matrix of GPUs has no data-centre ones
            pytest.skip(str(error)[-300:])
        raise
    with lmk.load("shoes", engine=engine) as landmarker:
        assert _is(landmarker, "shoes", crops, rtol=1e-4)
        for name in ("cats", "shoes"):
            landmarker.switch(name)
            assert _is(landmarker, name, crops, rtol=1e-4)
