"""One module per layout on the disk; all give the same Sample."""
