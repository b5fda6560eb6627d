"""pack: the whole export, and what is left on the disk when it fails."""

import numpy as np
import onnx
import pytest

from lmk.export.graph.pack import export_pack
from lmk.export.graph.trace import fold
from lmk.export.graph.verify import LIMITS_PX, DriftError, probe_crops, run_onnx
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import Contract
from lmk.runtime.runners.ort import OrtRunner
from lmk.train.network.checkpoint import read_header


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


def test_file_finds_what_the_unfolded_network_does(exported, crops, eager_landmarks):
    with OrtRunner(exported[0]) as runner:
        assert runner.contract == exported[1]
        landmarks, scores = runner(crops)
    np.testing.assert_allclose(landmarks, eager_landmarks, atol=0.01)
    assert 0 <= scores.min() <= scores.max() <= 1


def test_pack_from_scratch_needs_no_core_and_no_crops(make_pack, same_trace, tmp_path):
    pack, output = make_pack(tmp_path / "pack.safetensors", method="scratch"), tmp_path / "out.onnx"
    output.write_bytes(b"mine")
    contract = export_pack(pack, None, output, force=True)
    assert contract.drift["crops"] > 1
    onnx.checker.check_model(onnx.load(output))


def test_what_cannot_be_read_ends_the_export_before_anything_is_written(
    pack_path, core_path, make_pack, tmp_path
):
    nan = make_pack(
        tmp_path / "nan.safetensors", edit=lambda m: m.block2.conv1.projection[0].fill_(np.nan)
    )
    for pack, core, complaint in (
        (tmp_path / "none.safetensors", core_path, "no such file"),
        (pack_path, tmp_path / "none.safetensors", "no such file"),
        (pack_path, None, "needs the core"),
        (pack_path, pack_path, "got a category pack .*, expected a core"),
        (nan, core_path, "probe: 'landmarks': got .*, expected finite pixels"),
    ):
        with pytest.raises(UserError, match=complaint):
            export_pack(pack, core, tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["nan.safetensors"]


@pytest.fixture
def output(tmp_path):
    """A file that is there already, and must still be, alone, when the test ends."""
    path = tmp_path / "out.onnx"
    path.write_bytes(b"mine")
    yield path
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_existing_output_needs_force(pack_path, core_path, output):
    with pytest.raises(UserError, match="--force"):
        export_pack(pack_path, core_path, output)


@pytest.mark.parametrize(
    ("precision", "limits", "told"),
    [
        ("fp32", {"max": 0.0}, r"landmark 'p\d'"),
        ("bf16", {"p99": 1e-4}, r"landmark 'p\d': .* \(p99\) .*in bf16.*--precision fp16"),
    ],
)
def test_drift_over_its_limit_leaves_the_old_file(
    pack_path, core_path, same_trace, crops, output, monkeypatch, precision, limits, told
):
    monkeypatch.setitem(LIMITS_PX, precision, limits)
    with pytest.raises(DriftError, match=told):
        export_pack(pack_path, core_path, output, crops, force=True, precision=precision)


def test_a_wrong_fold_is_drift(pack_path, core_path, same_trace, output, monkeypatch):
    def wrong(model):
        folded = fold(model)
        folded.top.conv1.weight[0] *= 2
        return folded

    monkeypatch.setattr("lmk.export.graph.pack.fold", wrong)
    with pytest.raises(DriftError, match=r"landmark 'p\d'"):
        export_pack(pack_path, core_path, output, force=True)


def test_full_disk(pack_path, core_path, same_trace, output, full_disk):
    with full_disk(), pytest.raises(UserError, match=r"out\.onnx: the disk is full"):
        export_pack(pack_path, core_path, output, force=True)


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
def test_eight_bits_need_images(pack_path, core_path, output, precision):
    with pytest.raises(UserError, match=rf"precision {precision}: got no images.*--data"):
        export_pack(pack_path, core_path, output, force=True, precision=precision)
