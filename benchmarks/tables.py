"""Rows of texts -> a table, as Markdown or on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Column, Table


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """The rows below their columns, the first `left` of which begin at the left."""
    rule = [":--"] * left + ["--:"] * (len(columns) - left)
    cells = ([text.replace("|", "\\|") for text in row] for row in (columns, *rows))
    head, *lines = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, f"| {' | '.join(rule)} |", *lines])


def screen_table(title: str, first: str, heads: Iterable[str]) -> Table:
    """An empty table: a column `first` of names, and one of figures for each of `heads`."""
    columns = (Column(head, justify="right") for head in heads)
    return Table(Column(first, no_wrap=True), *columns, title=title, title_justify="left")
