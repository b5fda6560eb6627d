"""Lists with commas, as every command reads them."""

import click
import pytest

from lmk.runtime.terminal import CommaList


def test_each_entry_is_made_once():
    assert CommaList().convert(" a, b,a", None, None) == ("a", "b")
    assert CommaList(int).convert("8,1", None, None) == (8, 1)


@pytest.mark.parametrize(
    ("kind", "text", "noun"), [(str, "a,,b", "names"), (str, "", "names"), (int, "1,x", "numbers")]
)
def test_what_is_no_list_is_refused(kind, text, noun):
    with pytest.raises(click.BadParameter, match=f"got '{text}', expected {noun} with commas"):
        CommaList(kind).convert(text, None, None)
