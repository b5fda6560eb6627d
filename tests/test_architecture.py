"""The house: what stands above what, nothing in a circle, every room entered by its face."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("runtime", "train", "export", "studio", "benchmarks")
HEAVY = ("torch", "torchvision", "onnx", "onnxscript")

# From the ground up: a room imports from its own line and from those above it here, never below.
# A name that ends in a star is a room with all that is in it.
FLOORS = """
lmk
lmk.runtime.errors lmk.runtime.signals
lmk.runtime.files lmk.runtime.terminal
lmk.runtime.images lmk.runtime.cluster lmk.runtime.owner
lmk.runtime.detection
lmk.runtime.model.*
lmk.runtime.runners.*
lmk.runtime.finder
lmk.runtime.sources.*
lmk.runtime.regions.*
lmk.runtime.outputs.*
lmk.runtime.pipeline.*
lmk.runtime.landmarker
lmk.runtime.detect.* lmk.runtime.doctor.* lmk.runtime.find.*
lmk.runtime.commands
lmk.train.config lmk.train.draws lmk.train.split
lmk.train.datasets.*
lmk.train.distributed lmk.train.options
lmk.train.device lmk.train.augment
lmk.train.network.*
lmk.train.loop.*
lmk.train.core lmk.train.distill lmk.train.judge.*
lmk.train.adapting.*
lmk.train.commands
lmk.export.graph.*
lmk.export.engine.* lmk.export.triton lmk.export.web lmk.export.discovery
lmk.export.shipping
lmk.export.commands
lmk.studio.*
lmk.benchmarks.*
lmk.commands
lmk.cli
"""
# Rooms whose face hands on nothing: their commands must be quick to import, or they are run from a
# checkout, a program each.
ENTERED_BY_FILE = {
    "lmk.runtime.detect",
    "lmk.studio",
    "lmk.benchmarks.paper",
    "lmk.benchmarks.runners",
    "lmk.benchmarks.studies",
    "lmk.benchmarks.zoo",
}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["lmk", *(part for part in parts if part != "__init__")])


def _files() -> dict[str, Path]:
    paths = [*ROOT.glob("*.py"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.py"))]
    return {_module(path): path for path in sorted(paths)}


FILES = _files()
ROOMS = {name for name, path in FILES.items() if path.name == "__init__.py" and name.count(".") > 1}


def imported(source: str) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def ours(source: str) -> set[str]:
    """The modules of this package that `source` imports; through a face, what is behind it."""
    found = set()
    for module, name in imported(source):
        if module == "lmk" or module.startswith("lmk."):
            submodule = f"{module}.{name}"
            found.add(FACES.get(submodule) or (submodule if submodule in FILES else module))
    return found


def _faces() -> dict[str, str]:
    """room.name -> the module that the room's face takes the name from, or is."""
    faces = {}
    for room in ROOMS:
        for module, name in imported(FILES[room].read_text(encoding="utf-8")):
            inner = f"{module}.{name}"
            faces[f"{room}.{name}"] = inner if inner in FILES else module
    return faces


FACES = _faces()
IMPORTS = {name: ours(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def circle(arrows: Mapping[str, set[str]]) -> list[str] | None:
    """A way that comes back to where it began, if there is one."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done or name not in arrows:
            return None
        found = next((w for to in sorted(arrows[name]) if (w := walk(to, [*way, name]))), None)
        done.add(name)
        return found

    return next((way for name in sorted(arrows) if (way := walk(name, []))), None)


def reaches_past_a_face(module: str, target: str, name: str | None) -> bool:
    """Whether `module` takes `name` of `target` out of a room that it is not in, past its face."""
    if f"{target}.{name}" in FILES and f"{target}.{name}" not in FACES:
        target = f"{target}.{name}"  # a module, and not one that a face hands on
    return any(
        target.startswith(f"{room}.")
        and not f"{module}.".startswith(f"{room}.")
        and room not in ENTERED_BY_FILE
        and target not in ROOMS
        and target.rsplit(".", 1)[1] not in ("command", "commands")
        for room in ROOMS
    )


def floor(module: str) -> int:
    """The line of FLOORS that a module is on."""
    for number, line in enumerate(FLOORS.split("\n")):
        for name in line.split():
            if module == name or (name.endswith(".*") and f"{module}.".startswith(name[:-1])):
                return number
    raise AssertionError(f"{module}: stands on no floor; add it to FLOORS")


def test_nothing_goes_in_a_circle():
    faces = ROOMS | {"lmk"}  # which imports what it hands on when it is asked for
    assert circle({name: to for name, to in IMPORTS.items() if name not in faces}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_what_ships_needs_nothing_that_stays_in_the_checkout():
    stays = ("lmk.benchmarks.studies", "lmk.benchmarks.zoo")
    needed = {
        name: to for name in FILES if not name.startswith(stays)
        for to in IMPORTS[name] if to.startswith(stays)
    }  # fmt: skip
    assert not needed and any(name.startswith(stays) for name in FILES)


@pytest.mark.parametrize("name", sorted(set(FILES) - ROOMS - {"lmk"}))
def test_a_room_stands_on_those_below_it(name):
    if name in ("lmk.runtime", "lmk.train", "lmk.export", "lmk.benchmarks"):
        assert not IMPORTS[name]
        return
    above = sorted(to for to in IMPORTS[name] if floor(to) > floor(name))
    assert not above, f"{name} imports {above}, which stand above it"


@pytest.mark.parametrize("name", sorted(FILES))
def test_rooms_are_entered_by_their_face(name):
    taken = imported(FILES[name].read_text(encoding="utf-8"))
    past = sorted({module for module, what in taken if reaches_past_a_face(name, module, what)})
    assert not past, f"{name} imports {past}; import what it needs from the folder itself"


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.startswith("lmk.runtime")))
def test_runtime_names_no_training_library(name):
    modules = {module.split(".")[0] for module, _ in imported(FILES[name].read_text("utf-8"))}
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_are_written_in_full(name):
    wrong = [m for m, _ in imported(FILES[name].read_text("utf-8")) if m.split(".")[0] in FOLDERS]
    wrong += [m for m, _ in imported(FILES[name].read_text("utf-8")) if m.startswith(".")]
    assert not wrong, f"{name} imports {wrong}; write lmk.…"


def test_every_form_of_import_is_seen():
    source = "import a.b\ndef f():\n    from lmk import train\n    from .x import y\n"
    assert set(imported(source)) == {("a.b", None), ("lmk", "train"), (".x", "y")}
    assert reaches_past_a_face("lmk.cli", "lmk.runtime.model.contract", "Contract")
    assert not reaches_past_a_face("lmk.cli", "lmk.runtime.model", "Contract")
    assert not reaches_past_a_face("lmk.runtime.model.probe", "lmk.runtime.model.wire", "read")
    assert not reaches_past_a_face("lmk.cli", "lmk.train.commands", "adapt_command")


def test_no_class_has_two_meanings():
    where: dict[str, list[str]] = {}
    for name, path in FILES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where.setdefault(node.name, []).append(name)
    twice = {name: places for name, places in where.items() if len(places) > 1}
    assert not twice
