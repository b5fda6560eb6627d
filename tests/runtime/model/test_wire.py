"""wire: what is written by hand is what the onnx package reads, and the other way round."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from lmk.runtime.errors import UserError
from lmk.runtime.model import wire
from lmk.runtime.model.contract import read_model


@given(st.text(max_size=300), st.lists(st.integers(0, 2**40), max_size=4), st.binary())
def test_an_initializer_is_what_onnx_reads(name, shape, data):
    field = wire.encode_initializer(name, "float32", shape, data)
    (tensor,) = onnx.GraphProto.FromString(field).initializer
    assert (tensor.name, list(tensor.dims), tensor.raw_data) == (name, shape, data)
    assert tensor.data_type == onnx.TensorProto.FLOAT


def test_an_initializer_is_what_onnx_writes():
    values = np.arange(600, dtype="<f4").reshape(2, 300)
    field = wire.encode_initializer("rows", "float32", values.shape, values.tobytes())
    expected = onnx.GraphProto(initializer=[numpy_helper.from_array(values, "rows")])
    assert field == expected.SerializeToString()


def test_nodes_and_outputs_are_what_onnx_writes():
    node = helper.make_node("MatMul", ["a", "b"], ["c"], name="c")
    field = wire.encode_node("MatMul", ["a", "b"], "c")
    assert field == onnx.GraphProto(node=[node]).SerializeToString()
    info = helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["batch", 300, 2])
    field = wire.encode_output("c", ["batch", 300, 2])
    assert field == onnx.GraphProto(output=[info]).SerializeToString()


def test_a_graph_is_extended_behind_its_outputs():
    def value(name):
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch"])

    nodes = [
        helper.make_node("Neg", ["image"], ["mid"], name="one", doc_string="kept"),
        helper.make_node("Neg", ["mid"], ["out"]),
        helper.make_node("Softmax", ["out"], ["other"], axis=0),
    ]
    weights = [numpy_helper.from_array(np.ones(2, np.float32), "w")]
    infos = [value("mid"), value("out")]
    outputs = [value("out"), value("other")]
    graph = helper.make_graph(nodes, "g", [value("image")], outputs, weights, value_info=infos)
    fields = [
        wire.encode_output("out", ["batch"]),
        wire.encode_initializer("v", "float32", (), b"\0\0\0\0"),
        wire.encode_node("Neg", ["found"], "out"),
    ]
    data = wire.extend_graph(graph.SerializeToString(), fields, {"out": "found"})
    made = onnx.GraphProto.FromString(data)
    assert made.SerializeToString() == data
    assert [(list(n.input), list(n.output)) for n in made.node] == [
        (["image"], ["mid"]),
        (["mid"], ["found"]),
        (["found"], ["other"]),
        (["found"], ["out"]),
    ]
    assert made.node[0].doc_string == "kept" and made.node[2].attribute[0].name == "axis"
    assert [w.name for w in made.initializer] == ["w", "v"]
    assert [v.name for v in made.value_info] == ["mid"]
    assert [v.name for v in made.output] == ["out"] and made.input == graph.input


@pytest.mark.parametrize("dtype", wire.DTYPES)
def test_types_have_onnx_numbers(dtype):
    assert wire.DTYPES[dtype] == getattr(
        onnx.TensorProto, {"float32": "FLOAT"}.get(dtype, dtype.upper())
    )


@given(st.dictionaries(st.text(max_size=40), st.text(max_size=300), max_size=5))
def test_metadata_comes_back_from_behind_a_graph(tmp_path_factory, metadata):
    model = onnx.ModelProto(ir_version=9, producer_name="x" * 200)
    data = model.SerializeToString() + wire.encode_graph(b"") + wire.encode_metadata(metadata)
    read = onnx.ModelProto.FromString(data)
    assert {p.key: p.value for p in read.metadata_props} == metadata
    path = tmp_path_factory.mktemp("wire") / "model.onnx"
    path.write_bytes(data)
    assert wire.read_sealed(path) == (data, metadata, False)


def test_metadata_of_a_real_file(model_path):
    expected = {p.key: p.value for p in onnx.load(model_path).metadata_props}
    assert wire.read_sealed(model_path)[1:] == (expected, True)
    assert wire.DIGEST in expected


def test_every_changed_byte_is_found(model_path, tmp_path):
    """Whatever it makes of the file: no reader takes it."""
    data, path = model_path.read_bytes(), tmp_path / "changed.onnx"
    assert read_model(model_path)[0] == data
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(UserError, match="changed.onnx: "):
            read_model(path)
    path.write_bytes(data[: -len(wire.encode_metadata({wire.DIGEST: "0" * 64}))])
    with pytest.raises(UserError, match="changed.onnx: got no sha256 at its end"):
        read_model(path)


def test_truncated_missing_and_foreign_files(model_path, tmp_path):
    whole = model_path.read_bytes()
    path = tmp_path / "half.onnx"
    for data in (whole[: len(whole) // 2], whole[:-1], b"\xff" * 40, b"not protobuf"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"{path}: truncated or not an ONNX file"):
            wire.read_sealed(path)
    with pytest.raises(UserError, match="no such file"):
        wire.read_sealed(tmp_path / "none.onnx")
