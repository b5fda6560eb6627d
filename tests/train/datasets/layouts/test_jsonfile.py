"""JSON files: byte-order marks, damage, and looking at the ends only."""

import pytest

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.listing import edges, read_json


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_with_and_without_byte_order_mark(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(mark + b'{"a":\r\n [1, 2]}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2]}


@pytest.mark.parametrize("content", [b"", b'{"a": [1, 2', b"\xff\xfe{\x00}\x00", b"[" * 100_000])
def test_no_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON \(.*; get it again") as e:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(e.value)


def test_the_ends_of_a_file(tmp_path):
    (tmp_path / "a.json").write_bytes(b"head" + b"." * 500_000 + b"tail")
    found = edges(tmp_path / "a.json")
    assert found.startswith("head") and found.endswith("tail") and len(found) < 200_000
    (tmp_path / "b.json").write_bytes(b"head" + b"." * 80_000 + b"tail")
    assert edges(tmp_path / "b.json").replace("\n", "") == "head" + "." * 80_000 + "tail"
    assert edges(tmp_path / "absent.json") == ""
