"""The tables of the paper -> runs, figures, one page."""
