"""What the user names -> pack, core and the exported models that the runners open."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.benchmarks.runners.names import (
    STUDENT,
    RunnerSpec,
    device_of,
    is_pytorch,
    onnx_kind,
    parse_name,
    runs_engines,
)
from lmk.benchmarks.timing import seconds_of
from lmk.export.engine import LIBRARIES, EngineOptions, export_engine
from lmk.runtime.errors import UserError
from lmk.runtime.model import (
    ENGINE_NAMES,
    Contract,
    check_kind,
    contract_of,
    model_file,
    pack_of,
    read_header,
    read_info,
    read_model,
    sha256,
    workspace,
)
from lmk.runtime.runners import AUTO, open_device, settle


@dataclass
class Subject:
    """The model of a benchmark; what is made of it for a runner lies in `folder`."""

    given: Path
    contract: Contract
    pack: Path | None  # None: it is not here, and neither is what needs it
    core: Path | None
    folder: Path
    student: Subject | None = None  # distilled from it
    exported: dict[str, dict[str, Any]] = field(default_factory=dict)  # precision -> export
    built: dict[str, dict[str, Any]] = field(default_factory=dict)  # runner -> engine

    @property
    def facts(self) -> dict[str, Any]:
        """What the results say of the model."""
        return {
            "given": self.given.name,
            "category": self.contract.category,
            "landmarks": self.contract.num_landmarks,
            "input_size": self.contract.input_size,
            "bytes": self.given.stat().st_size,
            "sha256": sha256(self.given.read_bytes()),
            "pack_sha256": self.contract.pack_sha256,
        }

    def spec(
        self,
        name: str,
        device: str,
        threads: int,
        batches: tuple[int, ...],
        crops: NDArray[np.uint8] | None,
    ) -> RunnerSpec:
        """The spec of the runner `name`; makes its model, for int8 and fp8 with `crops`.

        Raises UserError when that cannot be made here, or the pack that it needs is not here.
        """
        if name.startswith(STUDENT):
            if self.student is None:
                raise UserError(f"{name}: got no student, expected one; name it by --student")
            of_teacher = name.removeprefix(STUDENT)
            its = self.student.spec(of_teacher, device, threads, batches, crops)
            return replace(its, name=name)
        kind, precision = parse_name(name)
        if kind == AUTO:
            return self._settled(name, threads, batches)
        place = device_of(kind, device)
        core = str(self.core) if self.core else None
        if is_pytorch(kind):
            file = self._needed_pack(name)
            return RunnerSpec(
                name, kind, precision or "fp32", place, threads, batches, str(file), core
            )
        own = self._own_file(kind, precision)
        if own is None and runs_engines(kind):
            open_device()  # an engine may be built without a GPU, in minutes, but not be measured
            own = self._engine(name, kind, self._onnx(name, precision, crops), batches)
        file = own or self._onnx(name, precision, crops)
        precision = precision or (self.contract.precision if self._is_model else "fp32")
        return RunnerSpec(name, kind, precision, place, threads, batches, str(file))

    def _settled(self, name: str, threads: int, batches: tuple[int, ...]) -> RunnerSpec:
        """What `lmk detect` would run here without being asked."""
        own = self.given if self._is_model else self._onnx(name, None, None)
        file, device = settle(own, AUTO, threads)
        if file.suffix == ".engine":
            info = read_info(file)
            kind, precision = ENGINE_NAMES[info.recipe.library], info.contract.precision
        else:
            kind, precision = onnx_kind(device), read_model(file)[1].precision
        place = device_of(kind, "cpu")
        return RunnerSpec(name, kind, precision, place, threads, batches, str(file))

    @property
    def _is_model(self) -> bool:
        return self.given.suffix in (".onnx", ".engine")

    def _needed_pack(self, name: str) -> Path:
        if self.pack is None:
            raise UserError(
                f"{name}: got {self.given.name} without its pack, sha256 "
                f"{self.contract.pack_sha256[:12]}…, which is neither beside it nor in "
                f"{workspace.RUNS}/; put it there, or name the pack instead"
            )
        return self.pack

    def _own_file(self, kind: str, precision: str | None) -> Path | None:
        """The given file, if a runner of `kind` runs just that."""
        if not self._is_model or precision not in (None, self.contract.precision):
            return None
        if self.given.suffix == ".onnx":
            return None if runs_engines(kind) else self.given
        library = read_info(self.given).recipe.library
        return self.given if ENGINE_NAMES[library] == kind else None

    def _onnx(self, name: str, precision: str | None, crops: NDArray[np.uint8] | None) -> Path:
        if self.given.suffix == ".onnx" and precision in (None, self.contract.precision):
            return self.given
        precision = precision or (self.contract.precision if self._is_model else "fp32")
        return self.export(name, precision, crops)

    def export(self, name: str, precision: str, crops: NDArray[np.uint8] | None = None) -> Path:
        """The pack as an ONNX file in `precision`, exported and verified once, with its seconds."""
        path = self.folder / f"model-{precision}.onnx"
        if precision not in self.exported:
            from lmk.export.graph import export_pack

            pack = self._needed_pack(name)
            seconds = seconds_of(
                lambda: export_pack(pack, self.core, path, crops, True, precision)  # type: ignore[arg-type]
            )
            self.exported[precision] = {"seconds": round(seconds, 2), "bytes": path.stat().st_size}
        return path

    def _engine(self, name: str, kind: str, onnx: Path, batches: tuple[int, ...]) -> Path:
        path = self.folder / f"{name}.engine"
        if name not in self.built:
            self.built[name] = build_twice(onnx, path, kind, batches, self.folder / "cache")
        return path


def open_subject(
    model: Path, core: Path | None, folder: Path, student: Path | None = None
) -> Subject:
    """What `model` names: a category, its pack, an ONNX file or an engine of ours.

    Raises UserError for a name that is not known, a file that is none of these, a core that is
    nowhere, a `student` of another teacher.
    """
    subject = _open_subject(model, core, folder)
    if student:
        below = folder / "student"
        below.mkdir()
        subject.student = _open_subject(student, None, below)
        path = subject.student.pack
        taught = read_header(path).get("teacher", {}).get("sha256") if path else None
        if taught != subject.contract.pack_sha256:
            raise UserError(
                f"--student: got {student}, of {taught or 'no teacher'}, expected a pack that "
                f"`lmk distill` has made of {model} ({subject.contract.pack_sha256[:12]}…)"
            )
    return subject


def _open_subject(model: Path, core: Path | None, folder: Path) -> Subject:
    path = workspace.pick(model, "pack")
    if not path.exists():
        path = model_file(path)  # a name, of which there is at most the exported model
    if path.suffix not in (".onnx", ".engine"):
        header = read_header(path)
        check_kind(path, header, "pack")
        return Subject(
            path, contract_of(header, "fp32", {}), path, core or workspace.core_of(path), folder
        )
    if path.suffix == ".engine":
        contract = read_info(path).contract
    else:
        if not path.is_file():
            raise UserError(f"{path}: no such file, expected an exported model; check the path")
        contract = read_model(path)[1]
    pack = pack_of(contract, path.parent)
    if pack and not core:
        core = workspace.core_of(pack)
    return Subject(path, contract, pack, core, folder)


def build_twice(
    onnx: Path, output: Path, kind: str, batches: tuple[int, ...], cache: Path
) -> dict[str, Any]:
    """Write the engine of an ONNX file to `output`, with an empty cache and again with a full one.

    kind: "trt" or "rtx". Returns `cold_s`, `cached_s` and `bytes`. Raises UserError as
    `export_engine`.
    """
    options = EngineOptions(LIBRARIES[kind], batches=batches)
    build = functools.partial(export_engine, onnx, output, options, force=True)
    with _cache(cache):
        cold, cached = (round(seconds_of(build), 3) for _ in ("cold", "cached"))
    return {"cold_s": cold, "cached_s": cached, "bytes": output.stat().st_size}


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Keep engines in `folder`, not in the user's cache, which may have them already."""
    before = os.environ.get("LMK_CACHE")
    os.environ["LMK_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LMK_CACHE"]
        if before is not None:
            os.environ["LMK_CACHE"] = before
