"""Commands that need no PyTorch but are no detection: info, doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from lmk.runtime.errors import UserError
from lmk.runtime.model import read_engine, read_header, read_model, workspace
from lmk.runtime.terminal import FILE_PATH, output


@click.command("info")
@click.argument("file", type=FILE_PATH)
@click.option("--json", "as_json", is_flag=True, help="Everything, machine-readable.")
def info_command(file: Path, as_json: bool) -> None:
    """Say what a core, pack, exported model or engine holds; a category stands for its pack."""
    print_info(workspace.pick(file, "pack"), as_json)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor_command(as_json: bool) -> None:
    """Say what this machine can run and what is missing."""
    print_doctor(as_json)


def print_info(path: Path, as_json: bool = False) -> None:
    """What a core, a pack, a run's state, an exported model or engine holds, on standard output.

    In short and rounded for reading, or whole as JSON.
    """
    if path.suffix == ".onnx":
        values = asdict(read_model(path)[1])
    elif path.suffix == ".safetensors":
        values = read_header(path)
    elif path.suffix == ".engine":
        values = read_engine(path)[0].flat()
    else:
        kind = "a folder" if path.is_dir() else f"'{path.suffix}'"
        raise UserError(f"{path}: got {kind}, expected a .safetensors, .onnx or .engine file")
    if as_json:
        print(json.dumps(values, indent=1))
        return
    screen = output()
    for name, value in values.items():
        screen.print(f"{name:16} {_brief(value)}")
    if values.get("format", 1) == 1 and path.suffix != ".engine":
        screen.print("unsealed         written before 0.2: a change of what it says cannot be told")


def _brief(value: object) -> str:
    """One line: floats to 4 digits, the last entry of a history, the worst drift."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if "max_px" in value and "crops" in value:  # of export/graph/verify.py
            return f"max {value['max_px']:.2g} px over {value['crops']} crops"
        if "crops" in value and "landmarks" in value:  # of runtime/model/probe.py
            return f"what is found in {value['crops']} synthetic crops"
        return ", ".join(f"{name} {_nested(each)}" for name, each in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[-1], Mapping):
            entries = "1 entry" if len(value) == 1 else f"{len(value)} entries, the last"
            return f"{entries}: {_brief(value[-1])}"
        return ", ".join(_nested(each) for each in value) or "-"
    return str(value) or "-"


def _nested(value: object) -> str:
    return f"({_brief(value)})" if isinstance(value, (Mapping, list, tuple)) else _brief(value)


def print_doctor(as_json: bool) -> None:
    """What this machine has, what is missing and the line that gets it, on standard output."""
    from lmk.runtime.doctor import examine

    diagnosis = examine()
    if as_json:
        print(json.dumps(asdict(diagnosis) | {"best_device": diagnosis.best_device}, indent=1))
        return
    screen = output()
    for check in diagnosis.checks:
        screen.print(f"{check.state:8} {check.name:20} {check.detail}")
        if check.cure:
            screen.print(f"{'':29} {check.cure}")
    best = diagnosis.best_runner
    screen.print(f"best runner here: {best.how}: {best.why}")
