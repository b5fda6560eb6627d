"""Figures of finished packs: what they show, how large, and when they are drawn again."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from lmk.benchmarks.paper import figures
from lmk.benchmarks.paper.figures import GALLERY_IMAGES, SHEET_IMAGES, SIDE, TRANSFORMS, write
from lmk.benchmarks.paper.plan import plan

pytestmark = pytest.mark.usefixtures("tiny")


def of_table(folder, name, options, **more):
    return plan(name, options(folder, **more).for_device("cpu"))


def test_sheet_has_a_row_for_each_method_and_image(made):
    names = {path.name for path in (made / "figures").iterdir()}
    assert {f"consistency-table{n}-butterfly-on-butterfly.jpg" for n in (4, 5)} <= names
    with Image.open(made / "figures/consistency-butterfly-on-butterfly.jpg") as sheet:
        pixels = np.array(sheet).astype(int)
        caption = sheet.info[figures.CAPTION].decode()
    left = pixels.shape[1] - (TRANSFORMS + 1) * SIDE
    assert left in range(100, 200)  # of the names
    assert len(pixels) == SHEET_IMAGES * 3 * SIDE + (SHEET_IMAGES - 1) * 12
    assert caption.startswith("butterfly: test images as they are")
    first, *others = (pixels[row * SIDE : (row + 1) * SIDE, left:] for row in range(3))
    for other in others:  # the same image, but for the landmarks
        assert np.median(np.abs(first - other)) <= 2


def test_gallery_shows_the_papers_method_on_whole_rows(made):
    with Image.open(made / "figures/gallery-butterfly-on-butterfly.jpg") as gallery:
        assert gallery.size == (4 * SIDE, SIDE)  # 40 drawings have 4 test images
        assert "projection" in gallery.info[figures.CAPTION].decode()
    assert GALLERY_IMAGES > 4


def test_map_has_a_column_for_each_method(made):
    with Image.open(made / "figures/map-butterfly-on-butterfly.jpg") as image:
        assert image.size == (3 * 2 * SIDE, 2 * SIDE + 48)
        assert "on 4 test images" in image.info[figures.CAPTION].decode()


def test_dots_are_where_the_landmarks_are():
    grey = np.full((64, 64, 3), 128, np.uint8)
    points = np.array([[[10, 20], [50, 40]]] * 3, np.float32)
    drawn = figures.cloud(grey, points).astype(int)
    scale = 2 * SIDE / 64
    colours = np.array([figures.colour(k) for k in range(2)])
    for k, (x, y) in enumerate(points[0]):
        seen = drawn[round((y + 0.5) * scale), round((x + 0.5) * scale)]
        assert np.abs(colours - seen).sum(axis=1).argmin() == k
    assert (drawn == drawn[0, 0]).all(axis=2).mean() > 0.99


def test_only_what_is_older_than_its_evaluation_is_drawn_again(made, tmp_path, options):
    folder = shutil.copytree(made, tmp_path / "copied")
    wanted = of_table(folder, "table1", options)
    paths = write(wanted, folder)
    assert len(paths) == 3
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert {path: path.stat().st_mtime_ns for path in write(wanted, folder)} == before
    later = paths[0].stat().st_mtime + 60
    os.utime(folder / "evaluations/puppet-butterfly-scratch-on-butterfly.json", (later, later))
    write(wanted, folder)
    changed = {path.name for path in paths if path.stat().st_mtime_ns != before[path]}
    # Not the gallery, which shows another pack.
    assert changed == {f"{kind}-butterfly-on-butterfly.jpg" for kind in ("consistency", "map")}


def test_without_evaluations_there_is_nothing_to_show(tmp_path, options):
    assert write(of_table(tmp_path, "all", options), tmp_path) == []
    assert not (tmp_path / "figures").exists()
