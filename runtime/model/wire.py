"""Arrays and metadata -> bytes of an ONNX file, and back, without the onnx package.

An ONNX file is a protobuf message: a row of fields, each a tag (number and wire type) and a value.
Only what is needed of onnx.proto stands here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular

# TensorProto.DataType by the name of the type.
DTYPES = {"float32": 1, "float16": 10, "bfloat16": 16}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_GRAPH, _METADATA = 7, 14  # fields of ModelProto
DIGEST = "lmk.sha256"  # of the metadata: the last entry of a file, over all bytes before it
_INITIALIZER = 5  # of GraphProto
_NODE, _OUTPUT, _VALUE_INFO = 1, 12, 13  # of GraphProto too


def encode_initializer(name: str, dtype: str, shape: Sequence[int], data: bytes) -> bytes:
    """A field of a graph: the tensor `name` of `dtype`, a key of DTYPES; `data` little-endian."""
    dims = b"".join(_number(1, side) for side in shape)
    kind = _number(2, DTYPES[dtype])
    return _field(_INITIALIZER, dims + kind + _field(8, name.encode()) + _field(9, data))


def encode_node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    """A field of a graph: the operator `kind` without attributes, named as its output."""
    parts = [*((1, name) for name in inputs), (2, output), (3, output), (4, kind)]
    return _field(_NODE, b"".join(_field(number, text.encode()) for number, text in parts))


def encode_output(name: str, shape: Sequence[int | str]) -> bytes:
    """A field of a graph: the output `name`, float32; a dynamic side of its shape has a name."""
    dims = b"".join(
        _field(1, _field(2, side.encode()) if isinstance(side, str) else _number(1, side))
        for side in shape
    )
    kind = _number(1, DTYPES["float32"]) + _field(2, dims)
    return _field(_OUTPUT, _field(1, name.encode()) + _field(2, _field(1, kind)))


def extend_graph(graph: bytes, fields: Sequence[bytes], replaced: Mapping[str, str]) -> bytes:
    """`graph` with its outputs replaced: `fields` are its new last nodes, weights and outputs.

    replaced: what the tensors are called from now on that were its outputs. The fields are in the
    order in which onnx would write them.
    """
    renamed = {old.encode(): new.encode() for old, new in replaced.items()}
    parts = [
        (number, _renamed(value, renamed) if number == _NODE else value)
        for number, value in _fields(graph)
        if number != _OUTPUT
        and not (number == _VALUE_INFO and dict(_fields(value)).get(1) in renamed)
    ]
    parts += [next(_fields(field)) for field in fields]
    return b"".join(_field(*part) for part in sorted(parts, key=lambda part: part[0]))


def encode_graph(graph: bytes) -> bytes:
    """A field of a model: its graph. It may stand once only: not every reader merges two."""
    return _field(_GRAPH, graph)


def encode_metadata(metadata: Mapping[str, str]) -> bytes:
    """Fields of a model; they may follow at its end."""
    return b"".join(
        _field(_METADATA, _field(1, key.encode()) + _field(2, value.encode()))
        for key, value in metadata.items()
    )


def seal(model: bytes) -> bytes:
    """The bytes of an ONNX file, and behind them, as a last entry of its metadata, their sha256."""
    return model + _seal_of(model)


def _seal_of(model: bytes | memoryview) -> bytes:
    return encode_metadata({DIGEST: hashlib.sha256(model).hexdigest()})


def read_sealed(path: Path) -> tuple[bytes, dict[str, str], bool]:
    """The bytes and the metadata of the ONNX file `path`, and whether it is sealed.

    Raises UserError when the file is missing, truncated, no protobuf message, or when a byte of it
    is not as it was when it was sealed.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a model made by `lmk export`; name a file")
    try:
        with open_regular(path) as file:
            data = file.read()
        entries = [dict(_fields(value)) for number, value in _fields(data) if number == _METADATA]
        metadata = {entry[1].decode(): entry[2].decode() for entry in entries}
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file, expected a model made by `lmk export`; check the path"
        ) from None
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{path}: truncated or not an ONNX file ({error}); export the pack again"
        ) from error
    if DIGEST in metadata:
        size = len(_seal_of(b""))
        if data[-size:] != _seal_of(memoryview(data)[:-size]):  # without a copy
            raise UserError(
                f"{path}: damaged: its bytes do not have the sha256 at its end; copy it again or "
                "export the pack again"
            )
    return data, metadata, DIGEST in metadata


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each field; those of fixed size and numbers are passed over."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind == _BYTES:
            size, at = _read_varint(data, at)
            if at + size > len(data):
                raise ValueError(f"got {len(data)} bytes, expected {at + size} or more")
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"got wire type {kind}")


def _renamed(node: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """A node with other names of its inputs (1) and outputs (2); it has no fields of numbers."""
    return b"".join(
        _field(number, names.get(value, value) if number in (1, 2) else value)
        for number, value in _fields(node)
    )


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _field(number: int, value: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _tag(number, _VARINT) + _varint(value)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
