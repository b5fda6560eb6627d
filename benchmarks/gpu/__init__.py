"""Work that needs a GPU: training the shipped weights."""
