"""Files are whole or absent."""

import errno
import os

import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.files import (
    as_cell,
    atomic_path,
    cache_folder,
    check_output,
    of_cell,
    printable,
    walk,
    write_bytes,
)


def test_failure_keeps_what_was_there(tmp_path):
    path = tmp_path / "out.csv"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_full_disk_is_said(tmp_path):
    path = tmp_path / "out.csv"
    with pytest.raises(UserError, match="out.csv: the disk is full"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_existing_output_asks_for_force(tmp_path):
    path = tmp_path / "new" / "out.csv"
    check_output(path, force=False)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="--force"):
        check_output(path, force=False)
    check_output(path, force=True)


@pytest.mark.parametrize("below", ["out.csv", "a/b/out.csv"])
def test_file_in_the_place_of_a_folder(tmp_path, below):
    (tmp_path / "notes").write_text("")
    with pytest.raises(UserError, match="notes: is a file, expected a folder"):
        check_output(tmp_path / "notes" / below, force=True)


def test_walk_gives_each_real_file_once_and_ends(tmp_path):
    folder, beside = tmp_path / "in", tmp_path / "beside"
    (folder / "deep").mkdir(parents=True)
    beside.mkdir()
    for path in (folder / "deep" / "a", folder / ".hidden", beside / "b"):
        path.write_text("x")
    (folder / "a-link").symlink_to(folder / "deep" / "a")
    (folder / "deep" / "up").symlink_to(folder)  # a loop
    for name in ("linked", "linked-again"):
        (folder / name).symlink_to(beside)
    (beside / "back").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert sorted(walk(folder)) == [folder / "deep" / "a", folder / "linked" / "b"]


def test_a_user_without_a_home_names_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as of a number that has no name
    for name in ("HOME", "LMK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="home folder: got a user without one.*; set LMK_CACHE"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LMK_CACHE", "")  # as good as unset, never the folder one stands in
    assert cache_folder() == tmp_path / "lmk"
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x"


def test_names_are_escaped_without_loss():
    assert printable("große Maus ⌘.png") == "große Maus ⌘.png"
    name = os.fsdecode(b"a\xff\\\x1b[31m\n.png")
    assert printable(name) == r"a\xff\\\x1b[31m\n.png"
    assert printable(name).encode().decode("unicode_escape").encode("latin-1") == os.fsencode(name)


def test_cells_are_no_formulas_without_loss():
    names = ["=1+1.png", "@x", "-5.png", "+", "'=1", "''@", "a=b", "'a", "it's", ""]
    cells = [as_cell(name) for name in names]
    assert cells == ["'=1+1.png", "'@x", "'-5.png", "'+", "''=1", "'''@", *names[6:]]
    assert [of_cell(cell) for cell in cells] == names


def test_errors_steer_no_terminal():
    error = UserError("a\x1b]0;b\x07\udcff.png: got nothing; leave it")
    assert str(error) == r"a\x1b]0;b\x07\xff.png: got nothing; leave it"
