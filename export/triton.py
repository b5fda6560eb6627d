"""Exported model -> a model repository of Triton Inference Server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmk.runtime.errors import UserError, write_error
from lmk.runtime.files import write_bytes
from lmk.runtime.model import INPUT, LANDMARKS, SCORES, Contract, read_engine, read_model

MAX_BATCH = 64
_FIRST_BATCH = 8  # what the server waits for before it goes for the largest
_QUEUE_MICROSECONDS = 500  # a tenth of what one crop takes on a CPU
_CONFIG, _LABELS = "config.pbtxt", "labels.txt"


@dataclass(frozen=True)
class _Model:
    """A file of ours as one of Triton's backends takes it."""

    contract: Contract
    data: bytes
    backend: str
    file_name: str  # that the backend expects
    max_batch: int
    instances: str  # fields of the instance group


def write_repository(path: Path, folder: Path, force: bool = False) -> Path:
    """Add the exported model `path` to the model repository `folder`; returns its version's folder.

    An ONNX file is served by the onnxruntime backend, on the GPU if the server has one, in batches
    of up to MAX_BATCH crops; an engine of TensorRT by the tensorrt backend, in those it was built
    for. The model is called as its file. A repository that has it already gets the next version,
    beside the earlier ones, and the server takes the newest; its config.pbtxt is then left as it
    is, with what was tuned in it. Raises UserError when the versions' tensors or labels differ and
    `force`, which writes config and labels anew, is off; when the newest version is this very
    model; for an engine that Triton cannot run; when the folder cannot be written.
    """
    if path.suffix == ".engine":
        model = _read_engine(path)
    else:
        data, contract = read_model(path)
        instances = "count: 1 kind: KIND_AUTO"
        model = _Model(contract, data, "onnxruntime", "model.onnx", MAX_BATCH, instances)
    place = folder / path.stem
    labels = "".join(f"{name}\n" for name in model.contract.landmark_names)
    versions = _versions(place)
    newest = versions[-1] / model.file_name if versions else None
    if newest and newest.is_file() and newest.read_bytes() == model.data:
        raise UserError(f"{newest}: is this very model, expected another; nothing was written")
    anew = force or not (place / _CONFIG).exists()
    if not anew:
        _check_fits(place, model, labels)
    number = int(versions[-1].name) + 1 if versions else 1
    with _staged(place / str(number), model):
        if anew:
            write_bytes(place / _LABELS, labels.encode())
            write_bytes(place / _CONFIG, _config(path.stem, model).encode())
    return place / str(number)


def _read_engine(path: Path) -> _Model:
    """The engine in `path`; raises UserError unless Triton can serve it."""
    info, plan = read_engine(path)
    if info.recipe.library != "tensorrt":
        raise UserError(
            f"{path}: got an engine of {info.titled_library}, expected one of TensorRT, which "
            "Triton has a backend for; name the ONNX file, or export with `--engine trt`"
        )
    # A profile of ours takes just its own batch, and Triton fills none up as our runner does.
    batches = info.recipe.batches
    if batches != tuple(range(1, len(batches) + 1)):
        raise UserError(
            f"{path}: got an engine for batches of {', '.join(map(str, batches))}, expected every "
            "number from 1 on, as Triton fills up none; name the ONNX file, or export with "
            "`--engine trt --batches 1,2,3,4`"
        )
    profiles = ", ".join(f'"{index}"' for index in range(len(batches)))
    instances = f"count: 1 kind: KIND_GPU profile: [ {profiles} ]"
    return _Model(info.contract, plan, "tensorrt", "model.plan", len(batches), instances)


def _config(name: str, model: _Model) -> str:
    """The config.pbtxt of a model: ModelConfig of Triton's model_config.proto in text form."""
    contract, side = model.contract, model.contract.input_size
    preferred = sorted({min(_FIRST_BATCH, model.max_batch), model.max_batch})
    return f"""\
# {INPUT}: RGB, rows from the top; {LANDMARKS}: (x, y) in pixels of it, (0, 0) the centre of the
# top-left one; {SCORES}: 0 to 1. Made by `lmk export`; yours to tune from dynamic_batching on.
name: {_quoted(name)}
{_promise(model)}
max_batch_size: {model.max_batch}
default_model_filename: "{model.file_name}"
version_policy {{ latest {{ num_versions: 1 }} }}
dynamic_batching {{
  preferred_batch_size: {preferred}
  max_queue_delay_microseconds: {_QUEUE_MICROSECONDS}
}}
instance_group [ {{ {model.instances} }} ]
# The first run takes far longer than the others: before the first request.
model_warmup [ {{
  name: "first run"
  batch_size: 1
  inputs {{
    key: "{INPUT}"
    value {{ data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] zero_data: true }}
  }}
}} ]
parameters {{ key: "lmk.category" value {{ string_value: {_quoted(contract.category)} }} }}
"""


def _promise(model: _Model) -> str:
    """What all versions of a model have in common; the crop's scale is for the clients."""
    contract, side = model.contract, model.contract.input_size
    return f"""\
backend: "{model.backend}"
input [ {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }} ]
output [
  {{ name: "{LANDMARKS}" data_type: TYPE_FP32 dims: [ {contract.num_landmarks}, 2 ] }},
  {{
    name: "{SCORES}"
    data_type: TYPE_FP32
    dims: [ {contract.num_landmarks} ]
    label_filename: "{_LABELS}"
  }}
]
parameters {{
  key: "lmk.crop_scale"
  value {{ string_value: "{contract.crop_scale!r}" }}
}}
parameters {{
  key: "lmk.landmark_names"
  value {{ string_value: {_quoted(json.dumps(contract.landmark_names))} }}
}}"""


def _quoted(text: str) -> str:
    """A string of protobuf's text form: its bytes, those that are not plain as octal numbers."""
    plain = set(range(32, 127)) - set(b'"\\')
    octets = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(octets)}"'


def _versions(place: Path) -> list[Path]:
    """The folders of the versions, as Triton sees them, the newest last."""
    if place.is_file():
        raise UserError(f"{place}: is a file, expected a folder; write elsewhere")
    found = [path for path in place.glob("*") if path.is_dir() and path.name.isdecimal()]
    return sorted((path for path in found if path.name[0] != "0"), key=lambda path: int(path.name))


def _check_fits(place: Path, model: _Model, labels: str) -> None:
    """Raise UserError unless a model can be a further version of what `place` holds."""
    config, label_file = place / _CONFIG, place / _LABELS
    try:
        written = config.read_text(encoding="utf-8")
        labels_before = label_file.read_text(encoding="utf-8") if label_file.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: cannot be read ({error}); write elsewhere") from error
    if " ".join(_promise(model).split()) not in " ".join(written.split()):
        what = f"backend, tensors, crop scale or landmark names in {config}"
    elif labels_before != labels:
        what = f"labels in {label_file}"
    else:
        return
    raise UserError(
        f"{place}: got a model of other {what}, expected a further version of the same model; give "
        "--force to write these files anew, or another folder"
    )


@contextlib.contextmanager
def _staged(place: Path, model: _Model) -> Iterator[None]:
    """Write the folder of a version under another name; it gets its own when the block is done.

    A server that polls the repository may look at any time. Triton passes over folders whose names
    are not numbers.
    """
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_bytes(temporary / model.file_name, model.data)
        yield
        os.rename(temporary, place)
    except OSError as error:
        raise write_error(place, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
