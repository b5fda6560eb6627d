"""A model repository is what Triton's schema says, grows by versions, and overwrites nothing."""

import dataclasses
import json
import os
import shutil

import onnx
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from lmk.export import triton
from lmk.export.triton import write_repository
from lmk.runtime.errors import UserError
from lmk.runtime.model import wire
from lmk.runtime.model.contract import Contract
from lmk.runtime.model.engine_file import EngineInfo, Recipe, sha256, write_engine

schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc]")


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def variant(exported, tmp_path):
    """Return a function that writes the exported model again with other metadata."""

    def write(**values) -> os.PathLike:
        path, contract = exported
        model = onnx.load(path)
        onnx.helper.set_model_props(model, dataclasses.replace(contract, **values).to_metadata())
        made = tmp_path / "variant" / path.name
        made.parent.mkdir(exist_ok=True)
        made.write_bytes(wire.seal(model.SerializeToString()))
        return made

    return write


@pytest.fixture
def engine(exported, tmp_path):
    """Return a function that writes an engine whose plan is no more than its bytes."""

    def write(batches, library="tensorrt", plan=b"plan") -> os.PathLike:
        recipe = Recipe("", "fp32", library, "11.0", "H200", ("9.0",), batches, False, 3, None)
        info = EngineInfo(exported[1], recipe, {}, {}, {}, 1.0, len(plan), sha256(plan))
        write_engine(tmp_path / "teapots.engine", info, plan)
        return tmp_path / "teapots.engine"

    return write


def _parse(text: str):
    return text_format.Parse(text, schema.ModelConfig())


def _config(place):
    return _parse((place / "config.pbtxt").read_text())


def test_onnx_model_is_served_by_the_contract(exported, repository):
    path, contract = exported
    assert write_repository(path, repository) == repository / "teapots/1"
    config = _config(repository / "teapots")
    assert (config.name, config.backend, config.max_batch_size) == ("teapots", "onnxruntime", 64)
    graph = onnx.load(path).graph
    for promised, tensors in ((config.input, graph.input), (config.output, graph.output)):
        shapes = {t.name: [d.dim_value for d in t.type.tensor_type.shape.dim] for t in tensors}
        # A dimension of no value is the batch, which max_batch_size stands for.
        assert shapes == {each.name: [0, *each.dims] for each in promised}
    assert {(each.name, each.data_type) for each in (*config.input, *config.output)} == {
        ("image", schema.TYPE_UINT8),
        ("landmarks", schema.TYPE_FP32),
        ("scores", schema.TYPE_FP32),
    }
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 64]
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_AUTO
    assert config.version_policy.latest.num_versions == 1
    assert float(config.parameters["lmk.crop_scale"].string_value) == contract.crop_scale


def test_repository_holds_the_model_and_its_labels(exported, repository):
    path, contract = exported
    version = write_repository(path, repository)
    names = {p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()}
    assert names == {f"teapots/{name}" for name in ("config.pbtxt", "labels.txt", "1/model.onnx")}
    assert (version / "model.onnx").read_bytes() == path.read_bytes()
    config = _config(version.parent)
    labels = version.parent / {o.name: o for o in config.output}["scores"].label_filename
    assert labels.read_text().splitlines() == list(contract.landmark_names)
    assert config.default_model_filename == "model.onnx"


def test_further_export_is_the_next_version_and_leaves_the_tuned_config(
    exported, repository, variant
):
    write_repository(exported[0], repository)
    config = repository / "teapots/config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 4") + "\n# tuned\n")
    tuned = config.read_text()
    (repository / "teapots/9.old").mkdir()  # versions are numbers
    assert write_repository(variant(pack_sha256="other"), repository).name == "2"
    (repository / "teapots/10").mkdir()
    assert write_repository(variant(pack_sha256="third"), repository).name == "11"
    assert config.read_text() == tuned
    assert (repository / "teapots/1/model.onnx").read_bytes() == exported[0].read_bytes()


def test_same_model_again_is_refused(exported, repository):
    write_repository(exported[0], repository)
    with pytest.raises(UserError, match="teapots/1/model.onnx: is this very model"):
        write_repository(exported[0], repository, force=True)
    assert not (repository / "teapots/2").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"landmark_names": ("a", "b", "c", "d", "e")}, "landmark names in"),
        ({"crop_scale": 2.0}, "crop scale"),
        ({"input_size": 32}, "tensors"),
    ],
)
def test_other_model_of_the_same_name_needs_force(exported, repository, variant, values, words):
    write_repository(exported[0], repository)
    before = (repository / "teapots/config.pbtxt").read_text()
    other = variant(**values)
    with pytest.raises(UserError, match=words) as caught:
        write_repository(other, repository)
    assert "--force" in str(caught.value)
    assert (repository / "teapots/config.pbtxt").read_text() == before
    assert not (repository / "teapots/2").exists()
    assert write_repository(other, repository, force=True).name == "2"
    assert (repository / "teapots/config.pbtxt").read_text() != before


def test_edited_labels_are_not_overwritten(exported, repository, variant):
    write_repository(exported[0], repository)
    (repository / "teapots/labels.txt").write_text("spout\n")
    with pytest.raises(UserError, match="other labels in .*labels.txt"):
        write_repository(variant(pack_sha256="other"), repository)


def test_engine_is_served_in_the_batches_it_was_built_for(engine, repository):
    version = write_repository(engine((1, 2, 3)), repository)
    assert (version / "model.plan").read_bytes() == b"plan"
    config = _config(version.parent)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 3)
    (group,) = config.instance_group
    assert group.kind == schema.ModelInstanceGroup.KIND_GPU
    assert list(group.profile) == ["0", "1", "2"]
    assert list(config.dynamic_batching.preferred_batch_size) == [3]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (((1, 8, 64),), "batches of 1, 8, 64, expected every number from 1 on"),
        (((1,), "tensorrt_rtx"), "TensorRT for RTX 11.0, expected one of TensorRT"),
    ],
)
def test_engine_that_cannot_be_served_is_refused(engine, repository, made, words):
    with pytest.raises(UserError, match=words):
        write_repository(engine(*made), repository)
    assert not repository.exists()


def test_engine_beside_an_onnx_model_needs_another_folder(exported, engine, repository):
    write_repository(exported[0], repository)
    with pytest.raises(UserError, match="other backend"):
        write_repository(engine((1,)), repository)


def test_landmark_name_of_two_lines_is_refused(variant, repository):
    with pytest.raises(
        UserError, match="expected names that differ, each of .* that can be printed"
    ):
        write_repository(variant(landmark_names=("a\nb", "c", "d", "e", "f")), repository)


def test_file_in_the_way_is_named(exported, repository):
    repository.mkdir()
    (repository / "teapots").write_text("")
    with pytest.raises(UserError, match="teapots: is a file, expected a folder"):
        write_repository(exported[0], repository)


def test_failed_write_leaves_no_half_version(exported, repository, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(UserError, match="the disk is full"):
        write_repository(exported[0], repository)
    assert [path for path in (repository / "teapots").iterdir() if path.is_dir()] == []


def test_command_takes_the_folder_in_the_place_of_the_pack(
    lmk, exported, pack_path, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in (exported[0], pack_path):
        shutil.copy(path, tmp_path / "runs")
    assert lmk("export", "--engine", "triton", "models") == 0
    printed = capsys.readouterr()
    assert printed.out == "models/teapots/1\n"
    assert "runs/teapots.onnx, exported before from this pack" in printed.err
    pack = "runs/teapots.safetensors"
    assert lmk("export", pack, "--engine", "triton", "--output", "more") == 0
    assert (tmp_path / "more/teapots/1/model.onnx").is_file()


def test_command_without_a_folder_says_so(lmk, pack_path, capsys):
    assert lmk("export", pack_path, "--engine", "triton") == 2
    assert "engine triton: got no folder" in capsys.readouterr().err


@given(
    name=st.text(min_size=1),
    category=st.text(),
    names=st.lists(st.text(), min_size=1, max_size=4),
    scale=st.floats(0.1, 10),
    batch=st.integers(1, 500),
)
def test_any_words_and_numbers_come_through_the_text_form(name, category, names, scale, batch):
    contract = Contract(category, len(names), 64, "fp32", "", "", tuple(names), scale)
    model = triton._Model(contract, b"", "onnxruntime", "model.onnx", batch, "count: 1")
    config = _parse(triton._config(name, model))
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert config.name == name and parameters["lmk.category"] == category
    assert json.loads(parameters["lmk.landmark_names"]) == names
    assert float(parameters["lmk.crop_scale"]) == scale
    assert max(config.dynamic_batching.preferred_batch_size) <= config.max_batch_size == batch
