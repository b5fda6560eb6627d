"""Layout `zappos`: UT-Zappos50K, photos of shoes without points (Yu & Grauman 2014).

`ut-zap50k-images-square/` (136x136 pixels) or, if that is absent, `ut-zap50k-images/` (136x102);
below it `Boots|Sandals|Shoes|Slippers/SUBCATEGORY/BRAND/NUMBER.jpg`. The folders of some brands
end in a dot, which is part of the name. Published experiments train on 49.5 thousand images and
test on 500 that nobody listed. Here a hash of the file's name holds out about one in a hundred:
the same in both trees and on every machine, whatever else is there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lmk.train.datasets.layouts.listing import Listing, first_of
from lmk.train.datasets.sample import Dataset, Layout

CATEGORIES = ("Boots", "Sandals", "Shoes", "Slippers")
_TREES = ("ut-zap50k-images-square", "ut-zap50k-images")
_HELD_OUT = 100  # one in so many


def open_zappos(root: Path) -> Dataset:
    """All images in `root`, unlabelled: splits train and test; `root` may be the tree itself.

    Absent categories are told in `problems`, a second tree in `notes`.
    """
    base = _tree(root)
    assert base, "what makes a folder be recognised"
    listing = Listing(LAYOUT.name, base)
    for category in CATEGORIES:
        names = listing.scan(category, deep=True)
        if not names:
            listing.leave_out("categories without images", f"{category}/")
        listing.take(names, split=[split_of(name) for name in names])
    for tree in _TREES:
        if (root / tree).is_dir() and root / tree != base:
            listing.note("the same images of another size, not read", f"{tree}/")
    return listing.dataset(root.resolve().name)


def split_of(name: str) -> str:
    """ "test" for about one file name in a hundred, else "train"; folders do not matter."""
    digest = hashlib.sha256(name.rpartition("/")[2].encode("utf-8", "surrogateescape")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _HELD_OUT == 0 else "train"


def _tree(root: Path) -> Path | None:
    """The folder of the categories, or None.

    Under another name it must hold all four: somebody's own folder may well have Boots and Shoes.
    """
    found = first_of(root, *_TREES)
    if found is None and all((root / name).is_dir() for name in CATEGORIES):
        return root
    return found


LAYOUT = Layout(
    "zappos",
    f"{_TREES[0]}/ or {_TREES[1]}/ with {', '.join(CATEGORIES)}",
    lambda root: _tree(root) is not None,
    open_zappos,
)
