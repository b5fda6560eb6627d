"""Files of pairs of landmarks, and what is wrong with them."""

import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.outputs.painter import read_skeleton


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "nose,tail\n\ntail, ear\n"),
        ("s.CSV", "\ufeffnose,tail\ntail,ear"),
        ("s.json", '[["nose", "tail"], ["tail", "ear"]]'),
    ],
)
def test_pairs_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_skeleton(tmp_path / name) == (("nose", "tail"), ("tail", "ear"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "nose,tail,ear\n", r"got \['nose', 'tail', 'ear'\], expected pairs"),
        ("s.csv", "", "got no pair"),
        ("s.json", "{", "cannot be read"),
        ("s.json", "7", "got 7, expected pairs"),
        ("s.json", "[[1, 2]]", r"got \[1, 2\], expected pairs"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_what_is_no_list_of_pairs_is_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_skeleton(tmp_path / name)
