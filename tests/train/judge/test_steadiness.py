"""Verdicts on landmarks whose behaviour is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmk.train import augment
from lmk.train.config import EvaluateConfig
from lmk.train.judge import steadiness
from lmk.train.judge.consistency import TURNS, Views, moved, transforms
from lmk.train.judge.steadiness import coverage, measure

SIZE, COUNT, VIEWS = 128, 60, 4
torch.set_num_threads(1)


def follow(still, expected, rng):
    return expected


def tremble(px):
    return lambda still, expected, rng: expected + rng.normal(0, px, expected.shape)


def slip(share, px):
    """Right, but in a share of the views off by so much."""

    def found(still, expected, rng):
        return expected + px * (rng.random((*expected.shape[:2], 1)) < share)

    return found


def stay(still, expected, rng):
    return np.broadcast_to(still, expected.shape)


def jump(still, expected, rng):
    return rng.uniform(10, 118, expected.shape)


def lag(share):
    return lambda still, expected, rng: still + share * (expected - still)


def see(*landmarks, images=COUNT, seed=0):
    """Views of landmarks, each a place in the crop, how it varies over images, how it moves."""
    rng = np.random.default_rng(seed)
    places = [np.array(p) + rng.uniform(-over, over, (images, 2)) for p, over, _ in landmarks]
    still = np.stack(places, axis=1).astype(np.float32)
    config = EvaluateConfig(seed=seed)
    moves = [transforms(np.arange(images), SIZE, config, view) for view in range(1 + VIEWS)]
    expected = np.stack([moved(still, move) for move in moves])
    found = expected.copy()
    for k, (_, _, behave) in enumerate(landmarks):
        found[1:, :, k] = behave(still[:, k], expected[1:, :, k], rng)
    blank = np.zeros((1 + VIEWS, images, SIZE, SIZE, 3), np.uint8)
    return Views(blank, found.astype(np.float32), expected)


def turned(seen, *swapped):
    """The same turned by 90° and 180°; landmarks `swapped` do not go with the second."""
    still = seen.found[0]
    quarters = augment.turns(torch.deg2rad(torch.tensor(TURNS)), SIZE)
    moves = [None, *(move.expand(len(still), 3, 3) for move in quarters)]
    expected = np.stack([moved(still, move) for move in moves])
    found = expected.copy()
    found[2, :, list(swapped)] = still[:, list(swapped)].swapaxes(0, 1)
    return Views(np.zeros((3, *seen.images.shape[1:]), np.uint8), found, expected)


def judge(*landmarks, swapped=(), scores=0.5, moving=None, off=None, course=None, **options):
    seen = see(*landmarks, **options)
    names = tuple(f"p{k}" for k in range(len(landmarks)))
    known = np.broadcast_to(np.float32(scores), seen.found.shape[1:3])
    return measure(seen, turned(seen, *swapped), known, names, moving, off, course)


CORNERS = [(30, 30), (98, 30), (30, 98), (98, 98), (64, 64)]


def test_each_behaviour_has_its_verdict():
    behaviours = [follow, tremble(4), stay, jump, slip(0.2, 10)]
    landmarks = [(place, 8, how) for place, how in zip(CORNERS, behaviours, strict=True)]
    judged = judge(*landmarks)
    words = [landmark.verdict for landmark in judged.landmarks]
    assert words == ["steady", "wobbly", "stuck", "wobbly", "wobbly"]
    assert [landmark.name for landmark in judged.useless] == ["p2", "p3"]  # stuck and jumping
    assert judged.headline == "1 of 5 landmarks are steady, 3 wobbly, 1 stuck."
    assert (judged.images, judged.views, judged.size) == (COUNT, VIEWS, SIZE)


def test_what_hardly_moves_over_images_is_not_stuck_if_it_follows():
    """True landmarks of aligned images are like that; a stuck one may well move over images."""
    aligned, roaming = judge(((40, 40), 0, follow), ((90, 90), 15, stay)).landmarks
    assert aligned.verdict == "steady" and aligned.spread_px < 0.1
    assert roaming.verdict == "stuck" and roaming.spread_px > 8


@given(
    share=st.floats(0, 1),
    place=st.tuples(st.floats(20, 108), st.floats(20, 108)),
    seed=st.integers(0, 9),
)
def test_follows_is_the_share_of_the_way(share, place, seed):
    landmark = judge((place, 5, lag(share)), images=10, seed=seed).landmarks[0]
    assert landmark.follows == pytest.approx(share, abs=0.01)
    assert (landmark.verdict == "stuck") == (landmark.follows < steadiness.FOLLOWS)


def test_beside_the_object_is_background_however_steady():
    off = np.zeros((COUNT, 2), bool)
    off[: COUNT // 4, 1] = True
    judged = judge((CORNERS[0], 5, follow), (CORNERS[1], 5, follow), off=off)
    assert [each.verdict for each in judged.landmarks] == ["steady", "background"]
    assert [each.name for each in judged.useless] == ["p1"] and judged.off_object == 0.125
    assert judged.headline == "1 of 2 landmarks are steady, none wobbly, none stuck, 1 background."
    assert math.isnan(judge((CORNERS[0], 5, follow)).off_object)


def test_what_slides_over_the_object_is_not_steady():
    moving = np.float32([[1, 9, np.nan], [2, 8, np.nan]])
    landmarks = [(place, 5, follow) for place in CORNERS[:3]]
    judged = judge(*landmarks, moving=moving)
    assert [each.verdict for each in judged.landmarks] == ["steady", "wobbly", "steady"]
    assert judged.landmarks[1].moving_px == 8.5 and judged.neighbours == 1


@pytest.mark.parametrize(
    ("course", "behaviour", "longer"),
    [
        ({"moved_px": 1.0, "fallen": 0.02}, tremble(4), 1),
        ({"moved_px": 1.0, "fallen": 0.2}, tremble(4), 2),
        ({"moved_px": 1.0, "fallen": 0.2}, follow, 1),
        ({"moved_px": 3.0}, follow, 2),
        ({"moved_px": 9.0, "fallen": 0.0}, follow, 4),
        ({}, tremble(4), 1),
    ],
)
def test_a_run_that_was_too_short(course, behaviour, longer):
    judged = judge((CORNERS[0], 5, behaviour), course=course)
    assert judged.longer == longer
    assert (f"give it {longer} times as long" in judged.summary) == (longer > 1)


def test_lengths_by_hand():
    landmark = judge((CORNERS[0], 10, slip(0.3, 3.0)), images=300).landmarks[0]
    assert landmark.median_px == pytest.approx(0, abs=1e-3)
    assert landmark.p90_px == pytest.approx(3 * math.sqrt(2), abs=1e-3)
    assert landmark.spread_px == pytest.approx(10 * math.sqrt(2 / 3), rel=0.05)
    assert landmark.score == 0.5


@pytest.mark.parametrize(
    ("px", "verdict"), [(0.99 * steadiness.STEADY_MEDIAN, "steady"), (0.021, "wobbly")]
)
def test_the_threshold_of_the_median(px, verdict):
    def aside(still, expected, rng):
        return expected + np.array([px * SIZE, 0])

    assert judge((CORNERS[0], 5, aside)).landmarks[0].verdict == verdict


def test_of_two_that_coincide_the_steadier_is_kept():
    judged = judge(((60, 60), 0, tremble(2)), ((61, 60), 0, follow), ((100, 60), 0, follow))
    assert [landmark.same_as for landmark in judged.landmarks] == ["p1", None, None]
    assert [landmark.name for landmark in judged.useless] == ["p0"]


def test_a_cell_apart_is_apart():
    judged = judge(((60, 60), 0, follow), ((64.1, 60), 0, follow), ((30, 30), 0, follow))
    assert not judged.useless


def test_landmarks_on_one_blob_are_told_first():
    judged = judge(*[((60 + k, 60), 0, follow) for k in range(3)])
    assert judged.collapsed and judged.headline == "Collapsed: all 3 landmarks sit on one blob."
    assert not judge(*[((20 + 40 * k, 60), 0, follow) for k in range(3)]).collapsed


@pytest.mark.parametrize(("how", "word"), [(follow, "steady"), (stay, "stuck")])
def test_all_alike_is_said_so(how, word):
    judged = judge(*[(place, 5, how) for place in CORNERS])
    assert judged.headline == f"All 5 landmarks are {word}."


def test_images_are_ranked_by_their_own_errors():
    seen = see(*[(place, 5, follow) for place in CORNERS], images=5)
    for image, px in enumerate([3.0, 0.0, 5.0, 1.0, 2.0]):
        seen.found[1:, image, :, 0] += px
    seen.found[1:, 2, :, 1] += 4.0
    judged = measure(seen, turned(seen), np.ones((5, 5), np.float32), tuple("abcde"))
    np.testing.assert_allclose(judged.errors_px, [3, 0, math.hypot(5, 4), 1, 2], atol=1e-3)
    assert judged.wrong == 1  # beyond 4 % of 128


def test_what_leaves_the_crop_does_not_count():
    seen = see((CORNERS[0], 0, follow), (CORNERS[1], 0, follow))
    seen.expected[1, :, 0], seen.found[1, :, 0] = -50.0, 64.0
    judged = measure(seen, turned(seen), np.ones((COUNT, 2)), ("a", "b"))
    assert judged.landmarks[0].verdict == "steady"


def test_never_in_sight():
    seen = see((CORNERS[0], 5, follow), (CORNERS[1], 5, follow))
    seen.expected[1:, :, 0] = -50.0
    judged = measure(seen, turned(seen), np.ones((COUNT, 2)), ("a", "b"))
    lost = judged.landmarks[0]
    assert math.isnan(lost.median_px) and math.isnan(lost.follows)
    assert lost.verdict == "wobbly" and lost.useless
    assert np.isfinite(judged.errors_px).all()


def test_one_view_is_not_enough():
    seen = see((CORNERS[0], 5, follow))
    alone = Views(seen.images[:1], seen.found[:1], seen.expected[:1])
    with pytest.raises(ValueError, match="V over 1"):
        measure(alone, turned(seen), np.ones((COUNT, 1)), ("a",))


def test_what_is_blurred_is_not_steady():
    judged = judge(*[(place, 5, follow) for place in CORNERS[:2]], scores=[0.49, 0.5])
    assert [landmark.verdict for landmark in judged.landmarks] == ["wobbly", "steady"]


def test_whether_they_turn_with_the_object():
    marks = [((30, 40), 5, follow), ((98, 30), 5, follow), ((30, 98), 5, stay)]
    judged = judge(*marks, swapped=[2])
    assert judged.turns and judged.turning.startswith("Turns with the object")  # what is steady
    judged = judge(*marks, swapped=[1, 2])
    assert [landmark.turns for landmark in judged.landmarks] == [True, False, False]
    assert not judged.turns and "upright only: at 90° and 180°, 1 of the 2 steady" in judged.summary
    assert judged.landmarks[1].turned_px == pytest.approx(2 * math.hypot(34.5, 33.5), rel=0.05)
    assert "cannot be said" in judge((CORNERS[0], 5, stay)).turning


@pytest.mark.parametrize(("good", "poor"), [(2, True), (3, False)])
def test_most_must_be_of_use(good, poor):
    """A landmark that slips is good for a rough position; one that stays is good for nothing."""
    hows = [follow, slip(0.2, 10), follow][:good] + [stay] * (5 - good)
    judged = judge(*((place, 8, how) for place, how in zip(CORNERS, hows, strict=True)))
    assert judged.poor is poor
    assert [landmark.rough for landmark in judged.landmarks] == [False, True, *[False] * 3]


def test_coverage_is_what_is_near_a_landmark():
    objects = np.zeros((3, 64, 64), bool)
    objects[:2, 10:42, 20:52] = True  # 32 × 32: the reach is 8 pixels; the third image shows none
    centre = np.array([[35.5, 25.5]], np.float32)
    spread = np.array([[x, y] for x in (25.5, 35.5, 45.5) for y in (15.5, 25.5, 35.5)], np.float32)
    one = coverage(np.repeat(centre[None], 3, axis=0), objects)
    assert one == pytest.approx(np.pi * 8**2 / 32**2, abs=0.01)
    assert coverage(np.repeat(spread[None], 3, axis=0), objects) > 0.99
    assert math.isnan(coverage(centre[None], objects[2:]))
