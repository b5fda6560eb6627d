"""A module is imported elsewhere: what stops it is told in one line, what it knows as a value."""

import sys

import pytest

from lmk.runtime.doctor.imports import ABSENT, Trial, try_import
from lmk.runtime.errors import install_line


@pytest.fixture
def put_module(tmp_path, monkeypatch):
    """Write a module to a folder on sys.path."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    return put


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", None),
        ("print('hello')", None),
        ("import lmk_not_there_either", "ModuleNotFoundError: No module named"),
        ("def f(:", "SyntaxError"),
        ("import os; os.abort()", "signal 6"),
        ("import os; os._exit(7)", "status 7"),
        ("import warnings; warnings.warn('old'); raise OSError('no driver')", "OSError: no driver"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_import_error(put_module, source, reason):
    put_module("lmk_fake", source)
    error = try_import("lmk_fake").error
    if reason is None:
        assert error is None
    else:
        assert reason in error and "\n" not in error


def test_missing_library_is_named_though_the_last_error_hides_it(put_module):
    put_module(
        "lmk_fake",
        "try:\n"
        "    raise ImportError('libnvinfer.so.10: cannot open shared object file: No such file')\n"
        "except ImportError as error:\n"
        "    raise ImportError('bindings failed\\nsee the manual') from error\n",
    )
    reason = "ImportError: bindings failed (library libnvinfer.so.10 not found)"
    assert try_import("lmk_fake") == Trial(reason)


def test_absent_submodule_of_a_package_that_is_there():
    assert try_import("email.lmk_no_such_part").error == ABSENT


def test_hanging_import(put_module, monkeypatch):
    put_module("lmk_fake", "import time; time.sleep(60)")
    monkeypatch.setattr("lmk.runtime.doctor.imports._SECONDS", 0.5)
    assert try_import("lmk_fake").error == "import takes more than 0.5 s"


def test_fact_is_a_value_of_the_module():
    assert try_import("math", "[module.floor(2.5), module.pi > 3]") == Trial(None, [2, True])


def test_fact_that_fails_leaves_the_import_well(put_module):
    put_module("lmk_fake", "def count(): raise RuntimeError('no driver\\nreally')")
    assert try_import("lmk_fake", "module.count()") == Trial(None, None, "no driver")
    assert try_import("lmk_fake", "1 / 0").complaint == "division by zero"


def test_install_line_of_a_wheel_needs_no_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr("lmk.runtime.errors.__file__", str(tmp_path / "lmk/runtime/errors.py"))
    assert install_line("trt") == "pip install 'lmk-toolkit[trt]'"
