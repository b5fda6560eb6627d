"""The paper's experiments as data: which packs, judged on what, and the figures it printed.

Figures are those of Sanchez & Tzimiropoulos (NeurIPS 2019), errors in % of the inter-ocular
distance, consistency in pixels of a 128-pixel crop; what was not to be had is left out. Importing
this needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lmk.train.datasets import category_name

Columns = Literal["comparison", "regression", "consistency", "ablation"]
METHODS = ("scratch", "finetune", "projection")  # the paper's three, from worst to best
KEPT_EPOCHS = (1, 5, 10)  # of a core, for the table of core quality
NUMBERS = (10, 100, 1000)  # of images to adapt to; that the paper has 10 is known, the rest is ours


@dataclass(frozen=True)
class DataSet:
    """A folder or the name of one, and its layout unless that is to be recognised."""

    spec: str
    layout: str | None = None

    @property
    def label(self) -> str:
        """What files and lines of a table call it."""
        return self.layout or category_name(self.spec)


@dataclass(frozen=True)
class PaperCategory:
    """What is adapted to, what it is judged on, and where the regressors are fitted."""

    adapted: DataSet
    test: DataSet
    fit: DataSet | None = None  # None: the training images of `test`
    paper: str = ""  # the paper's name of it


@dataclass(frozen=True)
class PaperRow:
    """One pack of a category; None stands for the finished core, and for all images."""

    method: str
    core_epoch: int | None = None
    images: int | None = None

    @property
    def label(self) -> str:
        """Its method, and what else sets it apart."""
        parts = [self.method]
        parts += [f"core after {self.core_epoch} epochs"] * (self.core_epoch is not None)
        parts += [f"{self.images} images"] * (self.images is not None)
        return ", ".join(parts)


FigureKey = tuple[str, PaperRow, str]  # the paper's name of the category, the row, the measure


@dataclass(frozen=True)
class PaperTable:
    """One table: its rows for every category, and what the paper has in them."""

    name: str
    title: str
    columns: Columns
    core: DataSet
    categories: tuple[PaperCategory, ...]
    rows: tuple[PaperRow, ...]
    paper: Mapping[FigureKey, float] = field(default_factory=dict)
    others: Mapping[tuple[str, str], float] = field(default_factory=dict)  # forward, by method
    core_quality: Mapping[int | None, float] = field(default_factory=dict)  # PCKh by core_epoch


MPII, W300LP, CELEBA, CATS, SHOES, BODIES, _AFLW, _LS3D = (
    DataSet(name, name)
    for name in ("mpii", "300w-lp", "celeba", "cats", "zappos", "bbcpose", "aflw", "ls3d")
)
MAFL = PaperCategory(CELEBA, DataSet("celeba", "mafl"), paper="MAFL")
AFLW = PaperCategory(CELEBA, _AFLW, paper="AFLW")  # adapted to CelebA, not to AFLW
LS3D = PaperCategory(W300LP, _LS3D, fit=W300LP, paper="LS3D")
FACES = (MAFL, AFLW, LS3D)
_SHOES, _CATS = PaperCategory(SHOES, SHOES, paper="Shoes"), PaperCategory(CATS, CATS, paper="Cats")

_THREE = tuple(PaperRow(method) for method in METHODS)
_PROJECTION = PaperRow("projection")


def _by_method(
    measure: str, figures: Mapping[str, tuple[float, float, float]]
) -> dict[FigureKey, float]:
    return {
        (paper, row, measure): value
        for paper, values in figures.items()
        for row, value in zip(_THREE, values, strict=True)
    }


# Scratch, finetune, projection; regressors fitted to all training images.
_FORWARD = _by_method(
    "forward",
    {"MAFL": (5.00, 3.91, 3.99), "AFLW": (7.65, 6.79, 6.69), "LS3D": (33.15, 24.79, 26.41)},
)
_BACKWARD = _by_method(
    "backward",
    {"MAFL": (17.57, 4.43, 3.55), "AFLW": (25.50, 11.14, 9.19), "LS3D": (14.45, 5.81, 5.44)},
)
_CONSISTENCY = _by_method(
    "consistency",
    {
        "MAFL": (9.11, 2.82, 1.91),
        "AFLW": (11.20, 4.32, 2.52),
        "LS3D": (12.42, 4.85, 4.06),
        "Shoes": (2.80, 2.27, 2.14),
        "Cats": (7.50, 3.05, 2.44),
    },
)
_FINISHED = {
    ("AFLW", _PROJECTION, "forward"): 6.69,
    ("AFLW", _PROJECTION, "backward"): 9.19,
    ("AFLW", _PROJECTION, "consistency"): 2.52,
}
_TEN_IMAGES = PaperRow("projection", images=10)
_FEW = {("AFLW", _TEN_IMAGES, "forward"): 12.01, ("AFLW", _TEN_IMAGES, "backward"): 7.31}

TABLES = {
    table.name: table
    for table in (
        PaperTable(
            "table1",
            "Comparison of forward errors, ten landmarks, all training images",
            "comparison",
            MPII,
            (MAFL, AFLW),
            _THREE,
            {key: figure for key, figure in _FORWARD.items() if key[0] != "LS3D"},
            others={
                ("Jakab et al. 2018", "MAFL"): 3.19,
                ("Jakab et al. 2018", "AFLW"): 6.86,
                ("Zhang et al. 2018", "MAFL"): 3.46,
                ("Zhang et al. 2018", "AFLW"): 7.01,
            },
        ),
        PaperTable(
            "table2",
            "Forward and backward errors by the number of annotated training images",
            "regression",
            MPII,
            FACES,
            _THREE,
            {**_FORWARD, **_BACKWARD},
        ),
        PaperTable(
            "table3",
            "Consistency under random similarities, landmarks from steadiest to least steady",
            "consistency",
            MPII,
            (*FACES, _SHOES, _CATS),
            _THREE,
            _CONSISTENCY,
        ),
        PaperTable(
            "table4",
            "Quality of the core: the same adaptation from a core after 1, 5, 10 and all epochs",
            "ablation",
            MPII,
            (AFLW,),
            (*(PaperRow("projection", core_epoch=epoch) for epoch in KEPT_EPOCHS), _PROJECTION),
            _FINISHED,
            core_quality={1: 22.95, 5: 55.03, 10: 57.67, None: 79.0},
        ),
        PaperTable(
            "table5",
            "Number of images adapted to",
            "ablation",
            MPII,
            (AFLW,),
            (*(PaperRow("projection", images=number) for number in NUMBERS), _PROJECTION),
            {**_FINISHED, **_FEW},
        ),
        PaperTable(
            "generalization",
            "The inverse: from a core for faces to bodies",
            "ablation",
            W300LP,
            (PaperCategory(BODIES, BODIES, paper="BBC-Pose"),),
            _THREE,
        ),
    )
}
