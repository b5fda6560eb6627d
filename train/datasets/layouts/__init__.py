"""A module for every layout on the disk; all give the same Sample."""

from lmk.train.datasets.layouts import (
    aflw,
    bbcpose,
    cats,
    celeba,
    coco,
    dlc,
    exports,
    folder,
    ls3d,
    lsp,
    mpii,
    slp,
    table,
    video,
    w300lp,
    yolo_pose,
    zappos,
)
from lmk.train.datasets.layouts.listing import count, told
from lmk.train.datasets.layouts.table import open_table
from lmk.train.datasets.layouts.video import USUAL_FILMS, FilmOptions, open_films

# The first that recognises a folder reads it; CelebA's folder is MAFL's too, if that is asked for,
# and `folder` recognises all.
_ALL = (
    mpii.LAYOUT,
    lsp.LAYOUT,
    bbcpose.LAYOUT,
    w300lp.LAYOUT,
    ls3d.LAYOUT,
    celeba.CELEBA,
    celeba.MAFL,
    aflw.AFLW,
    aflw.MTFL,
    cats.LAYOUT,
    zappos.LAYOUT,
    coco.LAYOUT,
    dlc.LAYOUT,
    slp.LAYOUT,
    yolo_pose.LAYOUT,
    exports.LABEL_STUDIO,
    exports.CVAT,
    table.LAYOUT,
    video.LAYOUT,
    folder.LAYOUT,
)
LAYOUTS = {layout.name: layout for layout in _ALL}
