"""Rows of texts as Markdown."""

from lmk.benchmarks.plots import markdown_table


def test_columns_of_names_begin_at_the_left_and_bars_stay_in_their_cell():
    assert markdown_table(["", "px"], [["a|b", "1.0"]]).splitlines() == [
        "|  | px |",
        "| :-- | --: |",
        "| a\\|b | 1.0 |",
    ]
    assert markdown_table(["a", "b"], [], left=2).endswith("| :-- | :-- |")
