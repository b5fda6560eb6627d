"""The table of formats, and what else has to agree with it."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmk.runtime.detect.command import detect_command
from lmk.runtime.doctor.diagnosis import _PACKAGES
from lmk.runtime.outputs.formats import FORMATS, output_files

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", FORMATS)
def test_help_pages_and_extras_say_what_a_format_is(name):
    form = FORMATS[name]
    described = CliRunner().invoke(detect_command, ["--help"]).output.split("--write takes")[1]
    [line] = [line for line in described.splitlines() if line.split()[:1] == [name]]
    assert form.help in line and all(file in line for file in [*form.files])
    for page in ("detection", "formats"):
        lines = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8").splitlines()
        [row] = [line for line in lines if line.startswith(f"| `{name}` |")]
        files = [*form.files, *(f"{file}/" for file in form.of_images or ())]
        assert all(f"`{file}`" in row for file in files)
        assert (f"[{name}]" in row) == bool(form.packages)
        assert page == "formats" or form.help in row
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [wanted.split(">")[0] for wanted in extras["optional-dependencies"].get(name, ())]
    assert needed == [module.replace("_", "-") for module in form.packages]
    assert {(module, name) for module in form.packages} <= {
        (package.module, package.extra) for package in _PACKAGES
    }


def test_no_two_files_have_one_name(tmp_path):
    files = [path for either in output_files(tmp_path, FORMATS) for path in either]
    assert len(set(files)) == len(files) == 9
