"""A module for every layout on the disk; all give the same Sample."""

from lmk.train.datasets.layouts import (
    aflw,
    bbcpose,
    cats,
    celeba,
    coco,
    folder,
    ls3d,
    lsp,
    mpii,
    table,
    w300lp,
    zappos,
)
from lmk.train.datasets.layouts.listing import mismatch, told
from lmk.train.datasets.layouts.table import open_table
