"""The picture of the README: drawn shoes, views of a photograph, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import lmk
from lmk.benchmarks.zoo import showcase
from lmk.benchmarks.zoo.showcase import SHOES, SIDE, Photo, draw_shoe, write_showcase
from lmk.runtime.errors import UserError


@pytest.fixture
def shoes(tmp_path, monkeypatch):
    """The pack that ships, its model composed in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    with lmk.load("shoes", threads=1) as landmarker:
        yield landmarker


def test_landmarks_of_drawn_shoes_do_not_follow_the_colour(shoes):
    low, boots = (
        np.stack([shoes(draw_shoe(*shoe)).points for shoe in SHOES if shoe[2] is is_boot])
        for is_boot in (False, True)
    )
    assert np.linalg.norm(low - low.mean(axis=0), axis=2).mean() < 0.03 * 2 * SIDE
    # A boot has a shaft; some landmarks are on it.
    assert np.linalg.norm(boots.mean(axis=0) - low.mean(axis=0), axis=1).max() > 0.15 * 2 * SIDE


def test_views_are_of_the_box(monkeypatch):
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[100:200, 150:250] = 200
    plain = showcase._view(picture, (150, 100, 100, 100), 0, 1.0, 0.0)
    assert plain.shape == (2 * SIDE, 2 * SIDE, 3) and (plain[8:-8, 8:-8] == 200).all()
    shrunk = showcase._view(picture, (150, 100, 100, 100), 0, 2.0, 0.0)
    assert np.isclose((shrunk[..., 0] > 100).mean(), 0.25, atol=0.01)
    turned = showcase._view(picture, (150, 100, 100, 100), 45, 1.0, 0.0)
    assert turned[4, 4, 0] == 0 and turned[SIDE, SIDE, 0] == 200


def test_a_row_a_photograph_and_one_of_shoes(shoes, tmp_path):
    photo = tmp_path / "boot.png"
    Image.fromarray(draw_shoe(*SHOES[-1])).save(photo)
    write_showcase(tmp_path / "out.jpg", [Photo.parse(f"shoes={photo}:0,0,{2 * SIDE},{2 * SIDE}")])
    assert Image.open(tmp_path / "out.jpg").size == (len(SHOES) * SIDE, 2 * SIDE)


@pytest.mark.parametrize(
    "text", ["cats.png", "cats=a.png", "cats=a.png:1,2,3", "cats=a.png:a,b,c,d"]
)
def test_a_photograph_needs_its_box(text):
    with pytest.raises(UserError, match="expected CATEGORY=FILE:x,y,w,h"):
        Photo.parse(text)
