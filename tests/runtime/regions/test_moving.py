"""Drawn films of a still camera: every object in its box, under its number, on its axis."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.regions.survey import survey_film


@pytest.fixture
def look(tmp_path, write_video):
    """Return a function that surveys a film of the given frames."""

    def of(frames, objects=None):
        path = write_video(tmp_path / "film.mkv", frames, codec="ffv1", pix_fmt="bgr0")
        return survey_film(path, objects)

    return of


def _followed(region, frames):
    """The targets of each frame, at 25 a second."""
    return [region.targets(Frame("film.mkv", n, n / 25, image)) for n, image in enumerate(frames)]


def _middle(target):
    x, y, width, height = target.box
    return x + width / 2, y + height / 2


def _apart(target, place):
    return math.hypot(_middle(target)[0] - place[0], _middle(target)[1] - place[1])


def test_one_that_wanders(look, drawn):
    frames, places = drawn.one(100)
    found = look(frames)
    assert not found.doubts and found.usual.count == 1
    assert found.usual.length == pytest.approx(36, abs=4)
    assert found.usual.width == pytest.approx(16, abs=4)
    followed = _followed(found.region(), frames)
    assert {tuple(t.track for t in targets) for targets in followed} == {(0,)}
    for [target], place in zip(followed, places, strict=True):
        assert _apart(target, place) < 2
        assert 36 < target.box[2] < 60
    # It goes head first: after a while its heading is known for good.
    turns = [math.cos(t.heading - place[2]) for [t], place in zip(followed, places, strict=True)]
    assert min(turns[25:]) > 0.9


def test_a_region_goes_on_where_it_was(look, drawn):
    frames, _ = drawn.one(60)
    found = look(frames)
    whole = _followed(found.region(), frames)
    first, second = found.region(), found.region()
    _followed(first, frames[:31])
    second.restore(json.loads(json.dumps(first.state())))
    rest = [
        second.targets(Frame("film.mkv", n, n / 25, image))
        for n, image in enumerate(frames[31:], start=31)
    ]
    assert rest == whole[31:]


def test_two_that_touch_and_part_keep_their_numbers(look, drawn):
    def places(step):  # side by side from step 40 to 60, then apart again
        gap = min(max(8.0, abs(step - 50) * 2.5 - 17), 60)
        x = 60 + step * 1.2
        return [(x, 90 - gap), (x, 90 + gap)]

    frames = [
        drawn.frame(drawn.floor(), [(*place, 0.0, 34, 15) for place in places(step)], seed=step)
        for step in range(100)
    ]
    found = look(frames)
    assert not found.doubts and found.usual.count == 2
    followed = _followed(found.region(), frames)
    assert {len(targets) for targets in followed} == {2}
    above = min(followed[0], key=lambda target: target.box[1]).track
    for step, targets in enumerate(followed):
        upper, lower = sorted(targets, key=lambda target: target.track != above)
        assert _apart(upper, places(step)[0]) < 6 and _apart(lower, places(step)[1]) < 6


@pytest.mark.parametrize("rest", [30, 70])
def test_one_that_rests_stays_found(look, drawn, rest):
    """Also where it rests so long that the median of all frames shows it."""
    places = [drawn.wander(max(0, step - rest)) for step in range(100)]
    frames = [drawn.frame(drawn.floor(), [(*p, 36, 16)], seed=n) for n, p in enumerate(places)]
    found = look(frames)
    assert not found.doubts
    for targets, place in zip(_followed(found.region(), frames), places, strict=True):
        assert len(targets) == 1 and _apart(targets[0], place) < 4


def test_a_light_that_is_switched(look, drawn):
    dark = (drawn.floor() * 0.4).astype(np.uint8)
    places = [drawn.wander(step) for step in range(100)]
    lamp = drawn.floor().astype(np.float32)
    lamp[:, : drawn.WIDTH // 2] *= 1.4  # no mere gain: a lamp at the left
    bright = np.clip(lamp, 0, 255).astype(np.uint8)
    frames = [
        drawn.frame(dark if n < 50 else bright, [(*place, 36, 16)], seed=n)
        for n, place in enumerate(places)
    ]
    found = look(frames)
    assert not found.doubts and len(found.background.views) == 2
    for targets, place in zip(_followed(found.region(), frames), places, strict=True):
        assert len(targets) == 1 and _apart(targets[0], place) < 4


def test_one_that_leaves_and_comes_back_has_its_number(look, drawn):
    def place(step):
        return (40 + 4.0 * step if step < 70 else 40 + 4.0 * (140 - step), 90.0)

    frames = [drawn.frame(drawn.floor(), [(*place(s), 0.0, 36, 16)], seed=s) for s in range(140)]
    followed = _followed(look(frames).region(), frames)
    assert [t.track for t in followed[10]] == [0] and followed[70] == []
    assert [t.track for t in followed[130]] == [0]


def test_forty(look, drawn):
    rows, columns = np.divmod(np.arange(40), 8)

    def places(step):
        sway = 9 * np.sin(step / 8 + np.arange(40))
        return np.stack([18 + columns * 29 + sway, 20 + rows * 35 + 5 * np.cos(step / 8)], axis=1)

    frames = [
        drawn.frame(drawn.floor(), [(*p, 0.0, 14, 8) for p in places(step)], seed=step)
        for step in range(80)
    ]
    found = look(frames)
    assert found.usual.count == 40
    for step, targets in enumerate(_followed(found.region(), frames)):
        away = [min(_apart(t, p) for p in places(step)) for t in targets]
        assert len(targets) >= 38 and np.median(away) < 3


def _shaken(drawn, count, reach):
    wide = np.pad(np.tile(drawn.floor(3), (2, 2, 1))[: drawn.HEIGHT + 80, : drawn.WIDTH + 80], 0)
    rng = np.random.default_rng(1)
    for step in range(count):
        top, left = rng.integers(0, reach, 2) if reach < 20 else (step % 80, step * 2 % 80)
        yield wide[top : top + drawn.HEIGHT, left : left + drawn.WIDTH]


def test_a_camera_that_shakes_a_little(look, drawn):
    places = [drawn.wander(step) for step in range(100)]
    frames = [
        drawn.frame(ground, [(*place, 36, 16)], seed=n)
        for n, (ground, place) in enumerate(zip(_shaken(drawn, 100, 3), places, strict=True))
    ]
    found = look(frames)
    assert not found.doubts
    for targets, place in zip(_followed(found.region(), frames), places, strict=True):
        assert len(targets) == 1 and _apart(targets[0], place) < 6


def _nothing(drawn):
    return [drawn.frame(drawn.floor(), [], seed=n) for n in range(60)]


def _panned(drawn):
    return [drawn.frame(ground, [], seed=n) for n, ground in enumerate(_shaken(drawn, 80, 80))]


def _cut(drawn):
    return [
        drawn.frame(drawn.floor(n // 3), [(*drawn.wander(n), 36, 16)], seed=n) for n in range(60)
    ]


def _huge(drawn):
    return [drawn.frame(drawn.floor(), [(*drawn.wander(n), 170, 120)], seed=n) for n in range(60)]


def _speck(drawn):
    return [drawn.frame(drawn.floor(), [(*drawn.wander(n), 3, 3)], seed=n) for n in range(60)]


@pytest.mark.parametrize(
    ("frames", "doubt"),
    [
        (_nothing, "nothing that moves"),
        (_panned, "a camera that moves|things that move"),
        (_cut, "a camera that moves, or cuts"),
        (_huge, "lights or scenes|pixels that moves in 240×180"),
        (_speck, "nothing that moves|pixels wide"),
        (lambda drawn: drawn.one(5)[0], "5 frames"),
    ],
)
def test_what_is_not_sure_is_told_with_the_cure(look, drawn, frames, doubt):
    with pytest.raises(UserError, match=f"got .*({doubt}).*--find box --start"):
        look(frames(drawn)).check()


def test_one_second_is_enough(look, drawn):
    frames, places = drawn.one(25)
    found = look(frames)
    assert not found.doubts
    for [target], place in zip(_followed(found.region(), frames), places, strict=True):
        assert _apart(target, place) < 3


def test_a_film_all_of_whose_frames_are_damaged_is_told(tmp_path, write_video, drawn):
    path = write_video(tmp_path / "film.mp4", drawn.one(30)[0])
    whole = path.read_bytes()
    start, end = whole.index(b"mdat") + 4, whole.rindex(b"moov") - 4
    assert end - start > 5000
    path.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    with pytest.raises(UserError, match="film.mp4: .*;") as caught:
        survey_film(path)
    assert "\n" not in str(caught.value)


def test_images_are_no_film(tmp_path, drawn):
    Image.fromarray(_nothing(drawn)[0]).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="got images, expected a film"):
        survey_film(tmp_path / "one.png")
