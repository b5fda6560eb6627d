"""Files are whole or absent."""

import errno

import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path, check_output, write_bytes


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
