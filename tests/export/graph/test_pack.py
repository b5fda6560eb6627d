"""pack: the whole export, and what is left on the disk when it fails."""

import copy
import errno
import os

import numpy as np
import onnx
import pytest

from lmk.export.graph.folding import fold
from lmk.export.graph.pack import export_pack
from lmk.export.graph.verify import LIMITS_PX, DriftError, probe_crops, run_onnx
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import Contract
from lmk.runtime.runners.ort import OrtRunner
from lmk.train.network.checkpoint import load_core, read_header, save_core


def test_file_finds_what_the_unfolded_network_does(exported, crops, eager_landmarks):
    landmarks, scores = run_onnx(exported[0].read_bytes(), crops)
    np.testing.assert_allclose(landmarks, eager_landmarks, atol=0.01)
    assert 0 <= scores.min() <= scores.max() <= 1


def test_contract_is_complete_and_stored(exported, pack_path, core_path):
    path, contract = exported
    stored = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert Contract.from_metadata(stored, str(path)) == contract
    assert contract.category == "teapots"
    assert (contract.num_landmarks, contract.input_size, contract.precision) == (5, 64, "fp32")
    assert contract.landmark_names == ("p0", "p1", "p2", "p3", "p4")
    assert contract.crop_scale == 1.25
    assert contract.core_sha256 == read_header(core_path)["sha256"]
    assert contract.pack_sha256 == read_header(pack_path)["sha256"]
    assert contract.drift["max_px"] < 0.01
    assert contract.drift["randomised"]["max_px"] < 0.01
    assert {"torch", "onnx", "onnxscript"} <= contract.versions.keys()


def test_runtime_takes_the_file(exported, crops, eager_landmarks):
    with OrtRunner(exported[0]) as runner:
        assert runner.contract == exported[1]
        landmarks, _ = runner(crops)
    np.testing.assert_allclose(landmarks, eager_landmarks, atol=0.01)


def test_pack_from_scratch_needs_no_core_and_no_crops(make_pack, same_trace, tmp_path):
    pack = make_pack(tmp_path / "pack.safetensors", method="scratch")
    contract = export_pack(pack, None, tmp_path / "out.onnx")
    assert contract.drift["crops"] > 1
    assert (tmp_path / "out.onnx").exists()


def test_pack_of_another_core_names_both(make_pack, core, tmp_path):
    other = copy.deepcopy(core)
    other.head.bias.data += 1
    save_core(tmp_path / "other.safetensors", other, {})
    pack = make_pack(tmp_path / "pack.safetensors")
    got = load_core(tmp_path / "other.safetensors")[1]["sha256"]
    expected = read_header(pack)["core_sha256"]
    with pytest.raises(UserError, match=rf"{got}.*{expected}") as caught:
        export_pack(pack, tmp_path / "other.safetensors", tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_pack(pack_path, core_path, tmp_path, part):
    data = pack_path.read_bytes()
    pack = tmp_path / "pack.safetensors"
    pack.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UserError, match=r"pack\.safetensors: truncated or not safetensors"):
        export_pack(pack, core_path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_truncated_core(pack_path, core_path, tmp_path):
    core = tmp_path / "core.safetensors"
    core.write_bytes(core_path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"core\.safetensors: truncated"):
        export_pack(pack_path, core, tmp_path / "out.onnx")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pack_that_is_not_finite(make_pack, core_path, tmp_path, value):
    def edit(model):
        model.block2.conv1.projection[0, 0] = value

    pack = make_pack(tmp_path / "pack.safetensors", edit=edit)
    with pytest.raises(UserError, match=r"probe: 'landmarks': got .*, expected finite pixels"):
        export_pack(pack, core_path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_missing_files(pack_path, core_path, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        export_pack(tmp_path / "none.safetensors", core_path, tmp_path / "out.onnx")
    with pytest.raises(UserError, match="no such file"):
        export_pack(pack_path, tmp_path / "none.safetensors", tmp_path / "out.onnx")
    with pytest.raises(UserError, match="needs the core"):
        export_pack(pack_path, None, tmp_path / "out.onnx")


def test_core_instead_of_a_pack(core_path, tmp_path):
    with pytest.raises(UserError, match="got a core .* expected a category pack"):
        export_pack(core_path, core_path, tmp_path / "out.onnx")


def test_existing_output_needs_force(pack_path, core_path, same_trace, tmp_path):
    output = tmp_path / "out.onnx"
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="--force"):
        export_pack(pack_path, core_path, output)
    assert output.read_bytes() == b"mine"
    export_pack(pack_path, core_path, output, force=True)
    onnx.checker.check_model(onnx.load(output))


def test_drift_leaves_no_file(pack_path, core_path, same_trace, tmp_path, monkeypatch):
    def wrong(model):
        folded = fold(model)
        folded.top.conv1.weight[0] *= 2
        return folded

    monkeypatch.setattr("lmk.export.graph.pack.fold", wrong)
    with pytest.raises(DriftError, match=r"landmark 'p\d'"):
        export_pack(pack_path, core_path, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_drift_leaves_the_old_file(pack_path, core_path, same_trace, tmp_path, monkeypatch):
    output = tmp_path / "out.onnx"
    output.write_bytes(b"mine")
    monkeypatch.setitem(LIMITS_PX, "fp32", {"max": 0.0})
    with pytest.raises(DriftError):
        export_pack(pack_path, core_path, output, force=True)
    assert output.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_full_disk(pack_path, core_path, same_trace, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "out.onnx"
    output.write_bytes(b"mine")
    monkeypatch.setattr("lmk.runtime.files.os.fsync", full)
    with pytest.raises(UserError, match=r"out\.onnx: the disk is full"):
        export_pack(pack_path, core_path, output, force=True)
    assert output.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precision_is_in_the_graph_and_in_the_contract(
    pack_path, core_path, same_trace, exported, tmp_path, monkeypatch, precision
):
    monkeypatch.setitem(LIMITS_PX, precision, {"mean": 20.0})  # random weights drift as they like
    output, crops = tmp_path / "out.onnx", probe_crops(64, 16, seed=1)
    contract = export_pack(pack_path, core_path, output, crops, precision=precision)
    assert (contract.precision, contract.drift["precision"]) == (precision, precision)
    assert contract.drift["synthetic"] is False
    assert output.stat().st_size < exported[0].stat().st_size
    with OrtRunner(output) as runner:
        assert runner.contract == contract
        landmarks, _ = runner(crops)
    expected, _ = run_onnx(exported[0].read_bytes(), crops)
    drift = np.linalg.norm(landmarks - expected, axis=2).mean()
    assert 0 < drift < 2 * contract.drift["pairs"]["eager-emulated"]["mean_px"] + 0.1


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_need_images(pack_path, core_path, tmp_path, precision):
    with pytest.raises(UserError, match=rf"precision {precision}: got no images.*--data"):
        export_pack(pack_path, core_path, tmp_path / "out.onnx", precision=precision)
    assert list(tmp_path.iterdir()) == []


def test_precision_over_its_limit_leaves_no_file(
    pack_path, core_path, same_trace, crops, tmp_path, monkeypatch
):
    monkeypatch.setitem(LIMITS_PX, "bf16", {"p99": 1e-4})
    with pytest.raises(DriftError, match=r"landmark 'p\d': .* \(p99\) .*in bf16.*--precision fp16"):
        export_pack(pack_path, core_path, tmp_path / "out.onnx", crops, precision="bf16")
    assert list(tmp_path.iterdir()) == []
