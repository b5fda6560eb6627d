"""A box that is followed by what it shows, before a camera that moves."""

import json

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.detection import Frame
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.regions.patch import PatchRegion

HEIGHT, WIDTH = 180, 240


@pytest.fixture(scope="module")
def film():
    """Frames in which a patch wanders and grows over a background that is panned; its boxes."""
    rng = np.random.default_rng(0)
    ground = np.asarray(
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).resize((480, 360))
    )
    thing = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
    frames, boxes = [], []
    for step in range(60):
        image = ground[step : step + HEIGHT, 2 * step : 2 * step + WIDTH].copy()
        side = 40 + step // 4
        x, y = 30 + 2 * step, 50 + round(20 * np.sin(step / 8))
        image[y : y + side, x : x + side] = np.asarray(thing.resize((side, side)))
        frames.append(image)
        boxes.append((x, y, side, side))
    return frames, boxes


def _followed(region, frames, start=0):
    found = []
    for n, image in enumerate(frames, start=start):
        [target] = region.targets(Frame("v.mp4", n, n / 25, image))
        found.append(target.box)
    return found


def test_the_box_goes_and_grows_with_what_it_shows(film):
    frames, boxes = film
    found = np.array(_followed(PatchRegion(parse_roi("30,50,40,40")), frames))
    centres, expected = (np.array(b)[:, :2] + np.array(b)[:, 2:] / 2 for b in (found, boxes))
    assert np.hypot(*(centres - expected).T).max() < 6
    np.testing.assert_allclose(found[-1, 2:], boxes[-1][2:], rtol=0.2)


def test_it_goes_on_where_it_was(film):
    frames, _ = film
    first = PatchRegion(parse_roi("30,50,40,40"))
    _followed(first, frames[:20])
    state = json.loads(json.dumps(first.state()))
    second = PatchRegion(parse_roi("30,50,40,40"))
    second.restore(state)
    assert _followed(second, frames[20:25], 20) == _followed(first, frames[20:25], 20)


def test_where_nothing_looks_like_it_the_box_stays(film):
    frames, _ = film
    region = PatchRegion(parse_roi("30,50,40,40"))
    _followed(region, frames[:3])
    before = _followed(region, frames[3:4], 3)
    grey = [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 5
    assert _followed(region, grey, 4) == before * 5
    assert abs(_followed(region, frames[4:5], 9)[0][0] - 38) < 4
