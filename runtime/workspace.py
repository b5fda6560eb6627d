"""Where results go and where inputs that were not named come from: `runs/` of this folder."""

from __future__ import annotations

from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.weights import read_header

RUNS = Path("runs")
ZOO = Path(__file__).parent.parent / "zoo"  # what ships with the package
_MADE_BY = {"core": "lmk train-core", "pack": "lmk adapt", "onnx": "lmk export"}


def newest(kind: str) -> Path:
    """The newest core, pack or onnx file in `runs/`, else the shipped one of that kind.

    Raises UserError that says which command makes one.
    """
    for folder in (RUNS, ZOO):
        candidates = sorted(folder.glob("*.onnx" if kind == "onnx" else "*.safetensors"), key=_age)
        for path in candidates:
            if kind == "onnx" or read_header(path)["kind"] == kind:
                return path
    raise UserError(f"no {kind} in {RUNS}/, expected one; run `{_MADE_BY[kind]}` or name the file")


def core_of(pack: Path) -> Path | None:
    """The core that `pack` was adapted from: by its sha256, in `runs/`, beside the pack, shipped.

    None for a pack that needs none. Raises UserError naming the sha256 when it is nowhere.
    """
    wanted = read_header(pack).get("core_sha256")
    if not wanted:
        return None
    folders = dict.fromkeys((pack.parent, RUNS, ZOO))
    for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
        header = read_header(path)
        if header["kind"] == "core" and header["sha256"] == wanted:
            return path
    places = ", ".join(str(folder) for folder in folders)
    raise UserError(
        f"{pack}: its core, sha256 {wanted}, is not in {places}; give the file by --core"
    )


def _age(path: Path) -> float:
    return -path.stat().st_mtime
