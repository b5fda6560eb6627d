"""The wheel, the tree and the imports are what design.md promises."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("train", "export", "runtime", "studio", "benchmarks")
FROM_CHECKOUT = tuple(ROOT / "benchmarks" / room for room in ("studies", "zoo"))
FILES = sorted(
    [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
)
SHIPPED = [path for path in FILES if not any(map(path.is_relative_to, FROM_CHECKOUT))]
HEAVY = ("torch", "torchvision", "onnx", "onnxscript", "tensorrt", "tensorrt_rtx")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _packages() -> list[str]:
    """The packages that stand in the tree, but for what is run from a checkout alone."""
    folders = [ROOT, *(init.parent for init in SHIPPED if init.name == "__init__.py")]
    return sorted({".".join(["lmk", *folder.relative_to(ROOT).parts]) for folder in folders})


@pytest.fixture(scope="session")
def wheel_names(tmp_path_factory) -> set[str]:
    """Build the wheel of a copy, tests included; setuptools would leave its folders in the tree."""
    copy = tmp_path_factory.mktemp("copy")
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    for folder in (*FOLDERS, "zoo", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", "dist", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (copy / "dist").glob("*.whl")
    assert wheel.name.startswith("lmk_toolkit-") and wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_package_and_nothing_else(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lmk"}
    assert len(tops) == 2
    python = {name for name in wheel_names if name.endswith(".py")}
    assert python == {f"lmk/{_name(path)}" for path in SHIPPED}
    others = {name for name in wheel_names if name.startswith("lmk/")} - python
    weights = {f"lmk/{_name(path)}" for path in (ROOT / "zoo").iterdir()}
    folders = ("studio/pages", "studio/static", "export/page")
    pages = {f"lmk/{_name(path)}" for path in ROOT.glob("[!.]*/**/*.jinja")}
    pages |= {f"lmk/{_name(path)}" for each in folders for path in (ROOT / each).iterdir()}
    assert others == {"lmk/py.typed"} | weights | pages


def test_wheel_has_licence_and_command(wheel_names):
    information = {name.split(".dist-info/")[1] for name in wheel_names if ".dist-info/" in name}
    assert {"licenses/LICENSE", "METADATA", "entry_points.txt"} <= information


def test_packages_are_the_folders_of_the_tree():
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    assert sorted(listed) == _packages()
    unmarked = {
        _name(path.parent) for path in SHIPPED if not (path.parent / "__init__.py").exists()
    }
    assert not unmarked, f"folders without __init__.py are not shipped: {unmarked}"


def test_light_modules_import_nothing_heavy(tmp_path):
    """One process: what any of them imported would be found."""
    names = [
        ".".join(["lmk", *path.relative_to(ROOT).with_suffix("").parts])
        for path in SHIPPED
        if path.is_relative_to(ROOT / "runtime") or path.parent == ROOT
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {['lmk', *names]!r}: importlib.import_module(name)\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_one_file_is_one_module():
    """With the root on sys.path nothing may come in as `train` or `runtime` too."""
    program = (
        "import sys, lmk, lmk.commands\n"
        "files = [m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)]\n"
        "print(sorted({file for file in files if files.count(file) > 1 and 'lmk' in file}))\n"
        f"print(sorted(set({FOLDERS!r}) & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


def test_root_holds_three_modules():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "cli.py", "commands.py"}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_file_says_what_it_is(path):
    assert path.name not in ("utils.py", "common.py", "helpers.py", "conftest.py")
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), f"{_name(path)}: no docstring"
