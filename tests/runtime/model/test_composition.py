"""named: a category's model is found or composed, checked, and kept up to date."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import lmk
from lmk.runtime.errors import UserError
from lmk.runtime.model import workspace
from lmk.runtime.model.composition import compose_file, is_composed, model_file
from lmk.runtime.model.contract import read_model
from lmk.runtime.model.template import compose, template_name


def contract_of(path):
    return read_model(path)[1]


def test_a_shipped_category_is_composed_once(shipped, toy_template, toy_core, toy_pack, capsys):
    pack = shipped()
    with lmk.load("toys", threads=1) as landmarker:
        assert landmarker.names == ("red", "green", "blue")
        assert landmarker.contract == contract_of(Path("runs/toys.onnx"))
    said = capsys.readouterr().err
    assert f"model: runs/toys.onnx, composed from {pack} (first use)" in said
    assert "verified: the pack's probe within" in said
    made = Path("runs/toys.onnx")
    onnx.checker.check_model(onnx.load(made), full_check=True)
    composed = compose(toy_template, toy_core, *toy_pack(), "pack")
    assert made.read_bytes().startswith(composed)  # the rest is metadata
    age = made.stat().st_mtime_ns
    assert model_file("toys") == made and made.stat().st_mtime_ns == age
    assert capsys.readouterr().err == ""
    assert {p.name for p in pack.parent.iterdir()} == {
        "core.safetensors",
        "toys.safetensors",
        template_name(toy_template.network, "fp32"),
    }


def test_contract_of_a_composed_model(shipped):
    contract = compose_file(shipped(), Path("out.onnx"))
    assert contract == contract_of(Path("out.onnx"))
    assert (contract.category, contract.num_landmarks, contract.input_size) == ("toys", 3, 64)
    assert contract.crop_scale == 1.25 and contract.precision == "fp32"
    assert contract.drift["reference"] == "probe" and contract.drift["max_px"] < 0.01
    assert {"onnx", "numpy"} <= contract.versions.keys()


def test_a_pack_without_a_probe_is_unchecked(shipped, capsys):
    pack = shipped(probed=False)
    assert contract_of(model_file("toys")).drift == {"reference": "none"}
    assert (
        f"warning: {pack} has no probe, so runs/toys.onnx is unchecked" in capsys.readouterr().err
    )


def test_a_pack_of_a_stopped_run_is_said_to_be_one(shipped, capsys):
    shipped(finished=False, step=7)
    model_file("toys")
    assert "was stopped at step 7" in capsys.readouterr().err


def test_composed_again_when_the_pack_has_changed(shipped, capsys):
    shipped()
    before = contract_of(model_file("toys"))
    shipped(seed=2)
    after = contract_of(model_file("toys"))
    assert before.pack_sha256 != after.pack_sha256
    assert "(the pack has changed)" in capsys.readouterr().err
    mine = shipped(Path("runs/toys.safetensors"), seed=3)  # comes before what ships
    model_file("toys")
    assert f"composed from {mine} (the pack has changed)" in capsys.readouterr().err


@pytest.mark.parametrize(("mine", "again"), [(False, False), (True, True)])
def test_an_exported_model_is_replaced_only_by_its_own_pack(shipped, make_model, mine, again):
    """What ships under the same name does not replace it."""
    exported = Path("runs/toys.onnx")
    exported.parent.mkdir()
    exported.write_bytes(make_model().read_bytes())
    shipped(Path("runs/toys.safetensors")) if mine else shipped()
    assert model_file("toys") == exported
    assert (exported.read_bytes() != make_model().read_bytes()) is again


def test_an_export_of_another_precision_stays(shipped, make_model, capsys):
    exported = Path("runs/toys.onnx")
    exported.parent.mkdir()
    exported.write_bytes(make_model(precision="fp16").read_bytes())
    shipped(Path("runs/toys.safetensors"))
    assert model_file("toys") == exported
    assert exported.read_bytes() == make_model(precision="fp16").read_bytes()
    assert "is not of runs/toys.safetensors as it is now; export it" in capsys.readouterr().err


def test_files_are_themselves(shipped, model_path, tmp_path):
    shipped()
    assert model_file(model_path) == model_path
    for name in ("toys.onnx", "toys.engine", "some/toys"):  # not there: whoever reads it says so
        assert model_file(name) == Path(name)
    (tmp_path / "toys").write_bytes(b"a file of that name")
    assert model_file("toys") == Path("toys")


def test_an_unknown_name_lists_what_there_is(shipped):
    with pytest.raises(
        UserError, match=r"^model: got 'cups', .* expected one of: none; `lmk adapt`"
    ):
        model_file("cups")
    shipped()
    Path("runs").mkdir()
    Path("runs/blobs.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="expected one of: blobs, toys;"):
        model_file("cups")
    with pytest.raises(UserError, match="got 'core', which is no file and no category"):
        model_file("core")


def test_no_template_of_that_architecture(shipped, toy_pack):
    network = toy_pack()[1]["network"] | {"width": 48}
    pack = shipped(probed=False, network=network)
    with pytest.raises(UserError, match=f"no fp32 template .*width 48.*`lmk export {pack}`"):
        model_file("toys")
    assert not Path("runs").exists()


def truncate(path, save=None):
    path.write_bytes(path.read_bytes()[:-9])


def fill_with_nan(path, save):
    arrays, header = read(path)
    arrays["head.bias"][1] = np.nan
    save(path, "pack", arrays, header)


def make_foreign(path, save):
    arrays, header = read(path)
    header["weights"][0]["recipe"] = "of the future"
    save(path, "template", arrays, header)


def flip(path, save):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def read(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["lmk"])
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


DAMAGE = {
    "truncated pack": ("toys", truncate, "toys.safetensors: truncated or not safetensors"),
    "truncated template": ("template*", truncate, "template.*: truncated or not safetensors"),
    "other version": ("template*", make_foreign, "template.*: got a template of another version"),
    "truncated core": ("core", truncate, "its core, sha256 .* is not in"),
    "nan": ("toys", fill_with_nan, r"toys.safetensors: tensor 'head\.bias' holds NaN"),
    "flipped bit": ("toys", flip, "toys.safetensors: its weights do not have its sha256"),
}


@pytest.mark.parametrize(("name", "damage", "complaint"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files(shipped, save_arrays, name, damage, complaint):
    pack = shipped()
    damage(*workspace.ZOO.glob(f"{name}.safetensors"), save_arrays)
    with pytest.raises(UserError, match=complaint):
        compose_file(pack, Path("runs/toys.onnx"))
    assert not Path("runs").exists()


def test_a_pack_of_another_core(shipped):
    shipped(core_sha256="f" * 64)
    with pytest.raises(UserError, match=f"its core, sha256 {'f' * 64}, is not in .*zoo"):
        model_file("toys")


def test_a_model_that_finds_something_else_is_not_kept(shipped, save_arrays):
    pack = shipped()
    arrays, header = read(pack)
    header["probe"]["landmarks"][0][2][1] += 0.5
    save_arrays(pack, "pack", arrays, header)
    with pytest.raises(UserError, match=r"landmark 'blue': got a drift of 0\.5 px from the probe"):
        model_file("toys")
    assert not Path("runs/toys.onnx").exists()


def test_a_model_that_is_truncated_is_told(shipped):
    shipped()
    truncate(model_file("toys"))
    with pytest.raises(UserError, match="runs/toys.onnx: truncated or not an ONNX file"):
        model_file("toys")


def test_what_was_composed_may_be_made_anew(shipped, model_path, tmp_path):
    shipped()
    assert is_composed(model_file("toys"))
    assert not is_composed(model_path)  # of an export
    assert not is_composed(tmp_path / "none.onnx")
    (tmp_path / "foreign.onnx").write_bytes(b"not ours")
    assert not is_composed(tmp_path / "foreign.onnx")


def test_a_folder_of_its_name_does_not_hide_a_category(shipped):
    shipped()
    Path("toys").mkdir()
    assert model_file("toys") == workspace.RUNS / "toys.onnx"
    Path("others").mkdir()
    assert model_file("others") == Path("others")  # which its reader says is a folder


def test_where_runs_cannot_be_written_the_cache_holds_the_model(shipped, monkeypatch, capsys):
    pack = shipped()
    monkeypatch.setenv("LMK_CACHE", str(Path("cache").absolute()))
    monkeypatch.setattr("os.access", lambda folder, mode: False)
    made = model_file("toys")
    assert made == Path("cache").absolute() / "models" / "toys.onnx"
    assert "(first use, for runs/ cannot be written)" in " ".join(capsys.readouterr().err.split())
    assert not workspace.RUNS.exists()
    assert model_file("toys") == made and capsys.readouterr().err == ""
    shipped(pack, seed=2)
    assert model_file("toys") == made
    assert "the pack has changed, for runs/ cannot" in " ".join(capsys.readouterr().err.split())
