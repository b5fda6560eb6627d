"""The built-in data: known points lie exactly on what is drawn."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.drawn import drawn as module
from lmk.train.datasets.drawn.drawn import CATEGORIES, builtin, clip, landmark_names, render
from lmk.train.datasets.drawn.figures import FIGURES, MAX_RADIUS, NUM_MOTIONS
from lmk.train.datasets.drawn.render import (
    CIRCLE,
    SHADOW,
    Sketch,
    background,
    bar,
    paint,
    smooth_closed,
)

SIZE = (160, 160)
DARK = Image.new("RGB", SIZE, SHADOW)  # the object's shadow does not show on it


def covering(sketch: Sketch, point: np.ndarray) -> tuple[int, ...] | None:
    """The colour of the topmost outline that holds `point`, by winding number."""
    for outline, colour in zip(sketch.outlines[::-1], sketch.colours[::-1], strict=True):
        rays = outline - point
        angles = np.arctan2(rays[:, 1], rays[:, 0])
        turns = (np.diff(angles, append=angles[:1]) + np.pi) % (2 * np.pi) - np.pi
        if abs(turns.sum()) > np.pi:
            return colour
    return None


def coverage(image: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """The share of `colour` in each pixel of a picture painted over DARK."""
    step = np.array(colour, float) - SHADOW
    return np.clip((image - np.array(SHADOW, float)) @ step / (step @ step), 0, 1)


def centroid(share: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: share.shape[0], : share.shape[1]]
    return np.array([(columns * share).sum(), (rows * share).sum()]) / share.sum()


@pytest.mark.parametrize("category", CATEGORIES)
def test_names_are_unique_and_sides_pair_up(category):
    names = landmark_names(category)
    assert len(set(names)) == len(names) == {"puppet": 14, "butterfly": 12}[category]
    swap = {"l_": "r_", "r_": "l_"}
    assert {swap.get(name[:2], name[:2]) + name[2:] for name in names} == set(names)


@pytest.mark.parametrize("category", CATEGORIES)
def test_left_is_the_objects_own_left(category):
    # The puppet faces us, the butterfly is seen from above.
    sketch = FIGURES[category](np.random.default_rng(0), np.zeros(NUM_MOTIONS))
    sign = 1 if category == "puppet" else -1
    for name, point in sketch.points.items():
        if name.startswith("l_"):
            assert sign * (point - sketch.points["r_" + name[2:]])[0] > 0


@pytest.mark.parametrize("other", [("puppet", 1, 0), ("puppet", 0, 1), ("butterfly", 0, 0)])
def test_other_seed_index_or_category_differs(other):
    difference = render(*other)[0].astype(int) - render("puppet", 0, 0)[0]
    assert np.abs(difference).mean() > 5


def test_the_same_in_another_process_with_other_hashes():
    code = (
        "import hashlib; from lmk.train.datasets.drawn.drawn import render;"
        "print(hashlib.sha256(render('puppet', 2, 7)[0].tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_needs_no_torch():
    code = "import sys, lmk.train.datasets.drawn.drawn; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("category", CATEGORIES)
def test_dataset(category):
    data = builtin(category, 30, seed=4)
    assert [sample.split for sample in data.samples] == ["train"] * 27 + ["test"] * 3
    assert len({sample.name for sample in data.samples}) == 30
    image, points = render(category, 29, seed=4)
    last = data.samples[29]
    np.testing.assert_array_equal(last.read(), image)
    np.testing.assert_array_equal(last.points, points)
    assert image.shape == (160, 160, 3) and image.dtype == np.uint8
    assert points.shape == (len(data.landmark_names), 2) and points.dtype == np.float32


def test_samples_do_not_depend_on_the_count_and_travel_to_workers():
    few, many = builtin("puppet", 1).samples[0], builtin("puppet", 12).samples[0]
    assert few.name == many.name and few.split == "train"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(few)).read(), many.read())


def test_fingerprint_follows_what_is_drawn(monkeypatch):
    prints = [builtin(*key).fingerprint for key in (("puppet", 2, 0), ("puppet", 2, 1))]
    prints += [builtin(*key).fingerprint for key in (("puppet", 3, 0), ("butterfly", 2, 0))]
    assert builtin("puppet", 2).fingerprint == prints[0]
    monkeypatch.setattr(module, "RENDER_VERSION", module.RENDER_VERSION + 1)
    prints.append(builtin("puppet", 2).fingerprint)
    assert len(set(prints)) == 5


@pytest.mark.parametrize("category", CATEGORIES)
def test_object_fills_the_image_and_stays_inside(category):
    for index in range(60):
        low, high = module._sketch(category, index, 0, SIZE).bounds()
        assert (low >= -0.5).all() and (high <= 159.5).all()
        assert 0.55 * 160 <= (high - low).max() <= 0.851 * 160


@pytest.mark.parametrize("name", ["l_eyespot", "r_eyespot", "l_hindspot", "r_hindspot"])
def test_spots_stay_in_sight_and_keep_their_colour(name):
    inner_is_dark = name == "r_eyespot"  # the others have a white centre
    for index in range(80):
        sketch = module._sketch("butterfly", index, 0, SIZE)
        top = covering(sketch, sketch.points[name])
        assert top is not None and (max(top) < 60) == inner_is_dark, (index, top)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_point_lies_on_the_object(category):
    for index in range(40):
        sketch = module._sketch(category, index, 1, SIZE)
        for name, point in sketch.points.items():
            assert covering(sketch, point) is not None, (index, name)


@pytest.mark.parametrize("name", ["l_eyespot", "r_eyespot", "l_wingtip", "r_antenna", "tail"])
@pytest.mark.parametrize("index", range(6))
def test_centroid_of_a_drawn_part_is_its_point(name, index):
    sketch = module._sketch("butterfly", index, 0, SIZE)
    point = sketch.points[name]
    hits = [np.abs(outline.mean(axis=0) - point).max() < 1e-6 for outline in sketch.outlines]
    part = max(i for i, hit in enumerate(hits) if hit)  # the topmost disc about the point
    sketch.colours = [SHADOW] * len(hits)
    sketch.colours[part] = (250, 240, 200)
    share = coverage(paint(sketch, DARK), sketch.colours[part])
    assert share.max() > 0.95
    assert np.abs(centroid(share) - point).max() < 0.2


@pytest.mark.parametrize("index", range(12))
def test_pupil_in_the_finished_picture_is_at_its_point(index):
    image, points = render("butterfly", index)
    point = points[landmark_names("butterfly").index("r_eyespot")]
    x, y = np.floor(point + 0.5).astype(int)
    red = image[y - 3 : y + 4, x - 3 : x + 4, 0].astype(float)  # dark pupil in a red iris
    share = np.zeros(SIZE)
    share[y - 3 : y + 4, x - 3 : x + 4] = np.clip((red.max() - red) / np.ptp(red) - 0.25, 0, None)
    assert np.abs(centroid(share) - point).max() < 0.3


@pytest.mark.parametrize("centre", [(20.0, 30.0), (20.5, 30.25), (21.3, 29.1)])
def test_pixel_centre_convention(centre):
    sketch = Sketch()
    sketch.disc(centre, 8.0, (255, 255, 255))
    share = coverage(paint(sketch, DARK), (255, 255, 255))
    assert np.abs(centroid(share) - centre).max() < 0.1
    assert share.sum() == pytest.approx(np.pi * 64, rel=0.05)


def test_a_square_on_pixel_edges_is_exact():
    sketch = Sketch()
    # From the first to the last of the sub-pixel centres of pixels 3, 4 and 5.
    low, high = 2.5 + 1 / 6, 5.5 - 1 / 6
    square = np.array([(low, low), (high, low), (high, high), (low, high)])
    sketch.fill(square, (255, 255, 255))
    expected = np.zeros(SIZE)
    expected[3:6, 3:6] = 1
    np.testing.assert_allclose(coverage(paint(sketch, DARK), (255,) * 3), expected, atol=0.01)


@pytest.mark.parametrize("category", CATEGORIES)
def test_twice_the_size_is_the_same_picture(category):
    small, points = render(category, 3)
    large, large_points = render(category, 3, size=(320, 320))
    np.testing.assert_allclose(large_points, (points + 0.5) * 2 - 0.5, atol=1e-3)
    difference = np.asarray(Image.fromarray(large).reduce(2)).astype(float) - small
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("category", CATEGORIES)
def test_figures_stay_within_their_radius(category):
    rng = np.random.default_rng(0)
    for _ in range(300):
        corners = rng.choice([-1.0, 1.0], NUM_MOTIONS)
        flat = np.concatenate(FIGURES[category](rng, corners).outlines)
        assert np.linalg.norm(flat, axis=1).max() < MAX_RADIUS


@pytest.mark.parametrize("category", CATEGORIES)
def test_points_follow_the_joints(category):
    rest = FIGURES[category](np.random.default_rng(0), np.zeros(NUM_MOTIONS)).points
    for joint in range(NUM_MOTIONS if category == "puppet" else 8):
        motion = np.eye(NUM_MOTIONS)[joint]
        moved = FIGURES[category](np.random.default_rng(0), motion).points
        assert max(np.abs(moved[name] - rest[name]).max() for name in rest) > 0.03, joint


@pytest.mark.parametrize("category", CATEGORIES)
def test_clip_is_smooth_and_in_the_frame(category):
    frames = list(clip(category, 40, seed=2))
    assert len(frames) == 40
    tracks = np.array([points for _, points, _ in frames])
    steps = np.linalg.norm(np.diff(tracks, axis=0), axis=2)
    assert steps.max() < 6 and steps.mean() > 0.2
    assert np.ptp(tracks, axis=0).max() > 10
    for image, points, (x, y, width, height) in frames:
        assert image.shape == (240, 320, 3) and image.dtype == np.uint8
        assert points.dtype == np.float32
        assert x >= 0 and y >= 0 and x + width <= 320 and y + height <= 240
        inside = (points + 0.5 >= (x, y)) & (points + 0.5 <= (x + width, y + height))
        assert inside.all()


def test_clip_keeps_its_background_and_its_individual():
    first, *_, last = clip("butterfly", 30, seed=0)
    far = np.ones((240, 320), bool)
    for _, _, (x, y, width, height) in (first, last):
        far[int(y) - 3 : int(y + height) + 20, int(x) - 3 : int(x + width) + 20] = False
    assert far.mean() > 0.2
    np.testing.assert_array_equal(first[0][far], last[0][far])
    again = next(clip("butterfly", 1, seed=0))
    np.testing.assert_array_equal(first[0], again[0])


def test_clip_of_another_size():
    for seed in range(4):
        for image, _, (x, y, width, height) in clip("puppet", 3, seed, size=(200, 120)):
            assert image.shape == (200, 120, 3)
            assert min(x, y) >= 0 and x + width <= 120 and y + height <= 200


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: builtin("cat", 3), "got 'cat', expected one of puppet, butterfly"),
        (lambda: render("cat", 0), "got 'cat', expected one of puppet, butterfly"),
        (lambda: landmark_names("cat"), "got 'cat', expected one of puppet, butterfly"),
        (lambda: next(clip("cat", 3)), "got 'cat', expected one of puppet, butterfly"),
        (lambda: builtin("puppet", 0), "expected 1 or more"),
        (lambda: next(clip("puppet", 0)), "expected 1 or more"),
        (lambda: builtin("puppet", 2, -1), "expected 0 or more"),
        (lambda: render("puppet", 0, -1), "expected 0 or more"),
        (lambda: next(clip("puppet", 2, -1)), "expected 0 or more"),
    ],
)
def test_what_cannot_be_drawn(call, complaint):
    with pytest.raises(UserError, match=complaint):
        call()


def test_backgrounds_vary():
    means = [np.asarray(background(np.random.default_rng(i), (64, 96))).mean() for i in range(30)]
    assert np.std(means) > 10
    assert background(np.random.default_rng(0), (64, 96)).size == (96, 64)


def test_outlines():
    limb = bar((0, 0), (4, 0), 1.0, 0.5)
    np.testing.assert_allclose([limb[:, 0].min(), limb[:, 0].max()], [-1.0, 4.5], atol=1e-9)
    assert np.isfinite(bar((1, 1), (1, 1), 0.1, 0.1)).all()  # no length, no direction
    corners = CIRCLE[::4]
    np.testing.assert_allclose(smooth_closed(corners, steps=5)[::5], corners, atol=1e-9)
