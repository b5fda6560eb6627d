"""Figures drawn by a program, with labels: data that needs no download."""

from lmk.train.datasets.drawn import drawn
from lmk.train.datasets.drawn.drawn import CATEGORIES, builtin, clip, walk
