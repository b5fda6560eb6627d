"""wire: what is written by hand is what the onnx package reads, and the other way round."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from lmk.runtime import wire
from lmk.runtime.errors import UserError


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
    assert wire.read_metadata(path) == metadata


def test_metadata_of_a_real_file(model_path):
    expected = {p.key: p.value for p in onnx.load(model_path).metadata_props}
    assert wire.read_metadata(model_path) == expected


def test_truncated_missing_and_foreign_files(model_path, tmp_path):
    whole = model_path.read_bytes()
    path = tmp_path / "half.onnx"
    for data in (whole[: len(whole) // 2], whole[:-1], b"\xff" * 40, b"not protobuf"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"{path}: truncated or not an ONNX file"):
            wire.read_metadata(path)
    with pytest.raises(UserError, match="no such file"):
        wire.read_metadata(tmp_path / "none.onnx")
