"""Name of a category -> its model: an exported one, else composed from its pack on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder, write_bytes
from lmk.runtime.model import workspace
from lmk.runtime.model.contract import Contract, Precision, read_model
from lmk.runtime.model.probe import check
from lmk.runtime.model.template import compose, read_template, stamp, template_name
from lmk.runtime.model.weights import Arrays, check_core, read_header, read_weights
from lmk.runtime.terminal import console

_FILE_SUFFIXES = (".onnx", ".safetensors", ".engine")
_PRECISION: Precision = "fp32"  # what runs everywhere


@dataclass(frozen=True)
class Composed:
    """A category's model in one precision, made of template, core and pack."""

    model: bytes  # ONNX, without metadata
    contract: Contract  # without drift
    probe: Mapping[str, Any] | None  # see `probe.record`


def model_file(model: Path | str) -> Path:
    """The file of `model`: itself if it names a file, else the category's `runs/NAME.onnx`.

    Where `runs/` cannot be written it is one in the cache folder. It is composed, and said on
    standard error, when it is not there, and again when it was made of other weights than
    `runs/NAME.safetensors` now holds, or composed from a pack that shipped before. Raises UserError
    for a name that is not known (the known ones are listed), and what `compose_file` raises.
    """
    path = Path(model)
    if path.is_file() or len(path.parts) != 1 or path.suffix in _FILE_SUFFIXES:
        return path
    output = workspace.RUNS / f"{path.name}.onnx"
    pack = workspace.pack_named(path.name)
    place = ""
    if pack and not (output.exists() and not _why_stale(output, pack)) and not _can_write(output):
        output = cache_folder() / "models" / output.name
        place = f", for {workspace.RUNS}/ cannot be written"
    if not output.exists():
        if pack is None:
            if path.exists():
                return path  # a folder, as whoever reads it says
            exported = {path.stem for path in workspace.RUNS.glob("*.onnx")}
            raise _unknown(path.name, exported | workspace.pack_names())
        reason = "first use"
    elif pack is None or not (stale := _why_stale(output, pack)):
        return output
    else:
        reason = stale
    console().print(f"model: {output}, composed from {pack} ({reason}{place})")
    contract = compose_file(pack, output)
    if "max_px" in contract.drift:
        console().print(f"verified: the pack's probe within {contract.drift['max_px']:.1e} px")
    else:
        console().print(f"warning: {pack} has no probe, so {output} is unchecked")
    return output


def compose_file(pack_path: Path, output: Path) -> Contract:
    """Write the ONNX file of a pack to `output`, checked by the pack's probe; return its contract.

    Raises UserError as `composed`, when the model does not find what the pack's probe says, or the
    file cannot be written; what was there before is then untouched.
    """
    made = composed(pack_path, _PRECISION)
    contract, drift = made.contract, {"reference": "none"}
    if made.probe:
        names, size = contract.landmark_names, contract.input_size
        drift = check(made.model, made.probe, size, names, str(pack_path))
    contract = replace(contract, drift=drift)
    write_bytes(output, stamp(made.model, contract))
    return contract


def composed(pack_path: Path, precision: Precision) -> Composed:
    """The model of a pack, unchecked.

    Core and template are looked for in runs/, beside the pack, and among what ships. Raises
    UserError when one is missing, damaged or of another pack.
    """
    pack, header = read_weights(pack_path, "pack")
    workspace.warn_unfinished(pack_path, header)
    template = read_template(_template_of(pack_path, precision))
    core: Arrays = {}
    if core_path := workspace.core_of(pack_path):
        core, core_header = read_weights(core_path, "core")
        check_core(pack_path, header, core_path, core_header["sha256"])
    model = compose(template, core, pack, header, str(pack_path))
    contract = contract_of(header, precision, template.versions | {"numpy": np.__version__})
    return Composed(model, contract, header.get("probe"))


def contract_of(
    header: Mapping[str, Any], precision: Precision, versions: dict[str, str]
) -> Contract:
    """The contract of the model that is made of a pack with `header`."""
    return Contract(
        category=header["category"],
        num_landmarks=len(header["landmark_names"]),
        input_size=header["network"]["input_size"],
        precision=precision,
        core_sha256=header["core_sha256"],
        pack_sha256=header["sha256"],
        landmark_names=tuple(header["landmark_names"]),
        crop_scale=header["crop_scale"],
        versions=versions,
        finding=header.get("finding"),
        teacher=header.get("teacher"),
        acceptance=header.get("acceptance"),
        following=header.get("following", 0),
    )


def pack_file(category: Path | str) -> Path:
    """The pack `category`: itself if it is a file of weights, else that of the name.

    Raises UserError for a name that is not known and for a model that was made of a pack.
    """
    path = Path(category)
    if path.suffix == ".safetensors":
        return path
    if path.suffix in _FILE_SUFFIXES or len(path.parts) != 1:
        raise UserError(
            f"{path}: got a model, expected a category or its pack, whose weights an engine takes; "
            "leave the engine out, or name the category"
        )
    pack = workspace.pack_named(path.name)
    if pack is None:
        raise _unknown(path.name, workspace.pack_names())
    return pack


def is_composed(model: Path) -> bool:
    """Whether `model` was composed on first use: nothing is lost by making it anew."""
    if not model.is_file():
        return False
    try:
        contract = read_model(model)[1]
    except UserError:
        return False
    return "reference" in contract.drift


def _can_write(path: Path) -> bool:
    """Whether a file can be put at `path`, whose folder may have to be made."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return os.access(folder, os.W_OK | os.X_OK)


def _why_stale(model: Path, pack: Path) -> str | None:
    """Why `model` is to be composed again of `pack`; None if it is not."""
    contract = read_model(model)[1]
    if contract.pack_sha256 == read_header(pack)["sha256"]:
        return None
    # What the user has exported is not replaced by what ships under the same name.
    if pack.parent != workspace.RUNS and "reference" not in contract.drift:
        return None
    if contract.precision != _PRECISION:
        console().print(f"warning: {model} is not of {pack} as it is now; export it again")
        return None
    return "the pack has changed"


def _template_of(pack: Path, precision: Precision) -> Path:
    network = read_header(pack)["network"]
    name = template_name(network, precision)
    for folder in dict.fromkeys((workspace.RUNS, pack.parent, workspace.ZOO)):
        if (folder / name).is_file():
            return folder / name
    facts = ", ".join(f"{key} {value}" for key, value in network.items())
    raise UserError(
        f"{pack}: no {precision} template for its network ({facts}), expected one in "
        f"{workspace.RUNS}/ or among what ships; {_cure(pack, network, precision)}, which needs "
        "torch"
    )


def _cure(pack: Path, network: Mapping[str, Any], precision: Precision) -> str:
    """How to do without a template that is missing."""
    if precision == _PRECISION:
        return f"run `lmk export {pack}`"
    return (
        f"make it by `python -m lmk.export.graph.template --width {network['width']} --input-size "
        f"{network['input_size']} --landmarks {network['num_landmarks']} --precision {precision} "
        f"{'' if network.get('skips', True) else '--no-skips '}"
        f"--output {workspace.RUNS}`"
    )


def _unknown(name: str, names: set[str]) -> UserError:
    known = ", ".join(sorted(names)) or "none"
    return UserError(
        f"model: got '{name}', which is no file and no category here, expected one of: {known}; "
        "`lmk adapt` makes more"
    )
