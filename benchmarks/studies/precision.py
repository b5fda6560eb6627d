"""What each precision costs in pixels and saves in bytes, and what engines build of it.

    python -m lmk.benchmarks.studies.precision --folder runs/precision --pack cats=cat_heads \\
        --pack shoes=shoes_zappos --target 7.5 --target 8.9 > precision.json

Also the time of the first pack's crops one at a time in ONNX Runtime on this CPU, in turns.

PACK=DATA: a file or a category that ships, and images of it. Engines are of TensorRT for RTX, of
the first pack, and built anew; without a target none is. What an export or a build refuses is
recorded in its words. The JSON goes to standard output.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from lmk.benchmarks.machine import machine
from lmk.benchmarks.timing import take_turns
from lmk.export.engine import (
    LIBRARIES,
    EngineOptions,
    build_engine,
    find_place,
    make_recipe,
)
from lmk.export.graph import export_pack
from lmk.runtime.errors import UserError
from lmk.runtime.model import PRECISIONS, Precision, probe_crops, read_header, read_model, workspace
from lmk.runtime.runners import OrtRunner
from lmk.runtime.terminal import FILE_PATH, console
from lmk.train.datasets import load_decoded
from lmk.train.network import versions

CROPS, REPEATS = 128, 60
RUNS_HERE: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # ONNX Runtime's CPU has no bf16


@click.command()
@click.option("--folder", type=FILE_PATH, required=True, help="The ONNX files stay here.")
@click.option("--pack", "packs", multiple=True, required=True, metavar="PACK=DATA")
@click.option("--target", "targets", multiple=True, help="Compute capability of an engine: 8.9")
def main(folder: Path, packs: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Export every pack in every precision, build engines of the first, print the JSON."""
    result: dict[str, Any] = {"machine": machine(), "packs": {}, "engines": {}}
    result["machine"]["versions"] |= versions("tensorrt-rtx")
    for number, pair in enumerate(packs):
        name, _, data = pair.partition("=")
        rows = result["packs"][Path(name).stem] = {}
        for precision in PRECISIONS:
            output = folder / f"{Path(name).stem}-{precision}.onnx"
            rows[precision] = export(Path(name), data, precision, output)
            console().print(f"{name} {precision}: {rows[precision]}")
            if number == 0 and output.exists():
                built = {target: build(output, target) for target in targets}
                result["engines"][precision] = built
    first = Path(packs[0].partition("=")[0]).stem
    files = {p: folder / f"{first}-{p}.onnx" for p in RUNS_HERE}
    result["cpu"] = cpu_latency({p: path for p, path in files.items() if path.exists()})
    print(json.dumps(result, indent=1))


def export(name: Path, data: str, precision: Precision, output: Path) -> dict[str, Any]:
    """Size, and drift from eager fp32 in pixels; or why it was refused."""
    pack = workspace.pick(name, "pack")
    size = read_header(pack)["network"]["input_size"]
    crops = load_decoded(data, None, size, "image").central_crops(CROPS, size)
    try:
        contract = export_pack(pack, workspace.core_of(pack), output, crops, True, precision)
    except UserError as error:
        return {"refused": str(error)}
    ran = "onnxruntime" if precision == "fp32" else "emulated"
    found = contract.drift["pairs"][f"eager-{ran}"]
    drift = {key: found[key] for key in ("mean_px", "p99_px", "max_px")}
    kept = contract.drift.get("kept", [])
    return {"bytes": output.stat().st_size, "crops": contract.drift["crops"], "kept": kept, **drift}


def cpu_latency(files: Mapping[Precision, Path]) -> dict[str, Any]:
    """Milliseconds of one crop in ONNX Runtime on the CPU, each precision in its turn."""
    runners = {precision: OrtRunner(path) for precision, path in files.items()}
    crop = probe_crops(next(iter(runners.values())).contract.input_size, 1, 0)
    calls: dict[str, Callable[[], object]] = {
        p: functools.partial(runner, crop) for p, runner in runners.items()
    }
    return {
        precision: {f"p{q}_ms": round(float(np.percentile(seconds, q)) * 1e3, 3) for q in (50, 99)}
        for precision, seconds in take_turns(calls, REPEATS).items()
    }


def build(onnx: Path, target: str) -> dict[str, Any]:
    """Size, seconds and layers of an engine for crops one at a time; or why it was refused."""
    options = EngineOptions(LIBRARIES["rtx"], batches=(1,), targets=(target,))
    data, contract = read_model(onnx)
    try:
        place = find_place(options, contract.precision)
        recipe = make_recipe(place, data, contract, options)
        with tempfile.TemporaryDirectory() as folder:
            timings = Path(folder) / "timings"
            info, plan = build_engine(place, data, contract, recipe, lambda percent: None, timings)
    except UserError as error:
        return {"refused": str(error)}
    return {
        "plan_bytes": len(plan),
        "seconds": round(info.build_seconds, 2),
        "layers": info.layers,
        "convolutions": info.convolutions,
    }


if __name__ == "__main__":
    main()
