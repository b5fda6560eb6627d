"""The room Ship: what `lmk export` can make of a pack here, how far off, how large, how fast."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lmk.runtime.errors import UserError, install_line
from lmk.runtime.landmarker import load
from lmk.runtime.model import (
    ENGINE_NAMES,
    LIBRARY_TITLES,
    PRECISIONS,
    Library,
    probe_crops,
    read_header,
    read_info,
    read_model,
    workspace,
)
from lmk.studio.gate import owner_only
from lmk.studio.jobs import Jobs
from lmk.studio.project import NotThere, Project

_FROM_IMAGES = ("int8", "fp8")  # precisions whose scales are those of the category's own pictures
_MODULES: dict[str, Library] = {"trt": "tensorrt", "rtx": "tensorrt_rtx"}
_CALLS = 15


class ShipRoom:
    """What the page asks for and sends."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self.project, self.jobs = project, jobs

    def routes(self) -> list[BaseRoute]:
        """All below /api/ship."""
        return [
            Route("/api/ship/{pack}", self.about),
            Route("/api/ship/{pack}/export", self.export, methods=["POST"]),
            Route("/api/ship/{pack}/file/{name}", self.download),
            Route("/api/ship/{pack}/speed/{name}", self.speed, methods=["POST"]),
        ]

    def about(self, request: Request) -> Response:
        """What can be made, and what was."""
        pack = request.path_params["pack"]
        titles = {engine: LIBRARY_TITLES[module] for engine, module in _MODULES.items()}
        choices = [
            {
                "engine": engine,
                "title": title,
                "precisions": PRECISIONS,
                "missing": _missing(engine),
            }
            for engine, title in {"onnx": "ONNX Runtime, OpenVINO", **titles}.items()
        ]
        made = [_told(path, self.project.pack_file(pack)) for path in self._files(pack)]
        return JSONResponse({"choices": choices, "made": made, "from_images": _FROM_IMAGES})

    async def export(self, request: Request) -> Response:
        """`lmk export`, behind its gate."""
        owner_only(request)
        sent, pack = await request.json(), request.path_params["pack"]
        path, engine, precision = self.project.pack_file(pack), sent["engine"], sent["precision"]
        if engine not in ("onnx", *_MODULES) or precision not in PRECISIONS:
            raise UserError(f"export: got {engine} in {precision}, expected what the page offers")
        command = ["export", str(path), "--engine", engine, "--precision", precision, "--force"]
        if sent.get("source") and (engine, precision) != ("onnx", "fp32"):
            command += ["--data", str(self.project.source(sent["source"]).path)]
        self.jobs.start(f"{pack} for {engine} in {precision}", [command])
        return JSONResponse({"started": True})

    def download(self, request: Request) -> Response:
        """A file that was made."""
        path = self._file(request)
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    async def speed(self, request: Request) -> Response:
        """How long one crop takes on this machine, in ms: `lmk bench` in small."""
        owner_only(request)
        return JSONResponse({"ms": await run_in_threadpool(_speed, self._file(request))})

    def _files(self, pack: str) -> list[Path]:
        path = self.project.pack_file(pack)
        stem = workspace.made_of(path, "").with_suffix("")
        ends = [f"{typed}{kind}" for typed in ("", *(f"-{p}" for p in PRECISIONS))
                for kind in (".onnx", ".engine")]  # fmt: skip
        files = [path, *(stem.with_name(stem.name + end) for end in ends)]
        return [file for file in files if file.is_file()]

    def _file(self, request: Request) -> Path:
        for path in self._files(request.path_params["pack"]):
            if path.name == request.path_params["name"]:
                return path
        raise NotThere(f"file: got '{request.path_params['name']}', expected one that was made")


def _missing(engine: str) -> str | None:
    """The line that gets what an engine needs and is not there."""
    if engine == "onnx":
        return None if importlib.util.find_spec("torch") else install_line("train")
    return None if importlib.util.find_spec(_MODULES[engine]) else install_line(engine)


def _told(path: Path, pack: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"name": path.name, "bytes": path.stat().st_size, "runs": False}
    try:
        if path.suffix == ".safetensors":
            header = read_header(path)
            count = len(header["landmark_names"]) - header.get("following", 0)
            kind = "named points" if "naming" in header else "landmarks"
            return told | {"what": f"pack, {count} {kind}"}
        if path.suffix == ".engine":
            recipe = read_info(path).recipe
            library = ENGINE_NAMES.get(recipe.library, recipe.library)
            return told | {"what": f"engine of {library}", "precision": recipe.precision}
        contract = read_model(path)[1]
        drift, precision = contract.drift, contract.precision
        pair = drift.get("pairs", {}).get("eager-emulated", {})
        return told | {
            "what": "ONNX",
            "precision": precision,
            "runs": precision in ("fp32", "fp16"),
            "stale": contract.pack_sha256 != read_header(pack)["sha256"],
            "mean_px": pair.get("mean_px"),
            "max_px": drift.get("max_px"),
        }
    except UserError as error:
        return told | {"what": str(error)}


def _speed(path: Path) -> float:
    with load(path) as model:
        crop = probe_crops(model.contract.input_size)[:1]
        times = []
        for _ in range(_CALLS):
            started = time.perf_counter()
            model.runner(crop)
            times.append(time.perf_counter() - started)
    return round(float(np.median(times[3:])) * 1000, 2)
