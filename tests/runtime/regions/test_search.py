"""Whole frame -> its objects, found by nothing but their landmarks."""

import numpy as np
import pytest

from lmk.runtime.regions.acceptance import Acceptance
from lmk.runtime.regions.region import overlap
from lmk.runtime.regions.search import Pyramid, fine_grid, grid, nearest_first, search, search_frame


def centre(box):
    return box[0] + box[2] / 2, box[1] + box[3] / 2


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (640, 360), (100, 1000)])
def test_the_grid_covers_the_frame_at_every_size(height, width):
    for level in grid(height, width)[1:]:
        seen = np.zeros((height, width), bool)
        for x, y, side, _ in level:
            assert x >= -0.51 and x + side <= width + 0.51
            seen[round(y) : round(y + side), round(x) : round(x + side)] = True
        assert seen.all()
    sides = [level[0][2] for level in grid(height, width)]
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == pytest.approx(min(height, width) / 4)


def test_a_small_object_of_known_size_has_crops_that_show_it():
    assert fine_grid(480, 640, (0, 0, 110, 110)) == []  # it shows in the usual ones
    assert fine_grid(480, 640, (0, 0, 300, 300)) == []
    fine = fine_grid(480, 640, (500, 300, 40, 40))
    assert 40 < fine[0][2] < 1.5 * 40
    assert np.hypot(*np.subtract(centre(fine[0]), (520, 320))) < 20
    for place in ((333, 257), (30, 30), (600, 450)):
        away = np.array([np.hypot(*np.subtract(centre(crop), place)) for crop in fine])
        assert away.min() < fine[0][2] / 3  # as near as landmarks are found


def test_the_smallest_are_searched_around_where_they_were():
    fine = np.array(fine_grid(2160, 3840, (3000, 200, 20, 20)))
    assert len(fine) == 1600 and set(fine[:, 2]) == {24}
    middles = fine[:, :2] + 12
    assert np.abs(middles - (3010, 210)).max() < 20 * 12
    assert np.abs(middles - (3010, 210)).max(axis=0).min() > 15 * 12


def test_the_nearest_crops_come_first():
    crops = [crop for level in grid(480, 640) for crop in level]
    ordered = nearest_first(crops, (500, 300, 120, 120))
    assert sorted(ordered) == sorted(crops)
    assert np.hypot(*np.subtract(centre(ordered[0]), (560, 360))) < 60
    sides = [crop[2] for crop in ordered]
    assert 110 <= sides[0] < 1.5 * 120  # it would show in these, wherever it is
    assert all(side == sides[0] for side in sides[: sides.count(sides[0])])


@pytest.mark.parametrize("thing", [(150.0, 100.0, 120), (330.5, 160.25, 70), (60.0, 170.0, 90)])
def test_an_object_is_found_wherever_it_is(spots, thing):
    image = spots.picture(240, 400, thing, seed=1)
    [found] = search_frame(spots.landmarker(), image, 1)
    assert found.is_object and found.error < Acceptance().error / 2
    expected = np.array(thing[:2]) + spots.CORNERS * thing[2] - 0.5
    assert np.abs(found.detection.points - expected).max() < 2
    assert np.hypot(*np.subtract(centre(found.detection.box), thing[:2])) < 0.15 * thing[2]
    assert 0.6 < found.detection.box[2] / thing[2] < 1.7


def test_several_objects_are_told_apart(spots):
    things = [(70, 70, 80), (330, 170, 70), (200, 60, 60)]
    image = spots.picture(240, 400, *things)
    found = search_frame(spots.landmarker(), image, 3)
    assert len(found) == 3
    for x, y, side in things:
        nearest = min(np.hypot(*np.subtract(centre(one.detection.box), (x, y))) for one in found)
        assert nearest < 0.2 * side
    assert len(search_frame(spots.landmarker(), image, 1)) == 1


def test_a_search_ends_when_it_has_found_what_was_wanted(spots):
    image = spots.picture(240, 400, (70, 70, 80), (330, 170, 70))
    runs = []
    for wanted in (1, 2):
        landmarker = spots.landmarker()
        assert len(search_frame(landmarker, image, wanted)) == wanted
        runs.append(sum(landmarker.runner.calls))
    assert runs[0] < runs[1]
    nothing = spots.landmarker()
    crops = grid(240, 400)[1]
    assert search(nothing, Pyramid(spots.picture(240, 400, seed=2)), crops) == []
    assert sum(nothing.runner.calls) == len(crops)  # nothing is looked at closer


def test_large_crops_of_halves_show_what_those_of_the_image_do(spots):
    image = spots.picture(961, 1283, (640, 480, 500), seed=3)
    landmarker, pyramid = spots.landmarker(), Pyramid(image)
    boxes = [(300.0, 150.0, 640.0, 640.0), (-150.0, -100.0, 1283.0, 1283.0)]
    whole = landmarker.batch([image] * 2, boxes)
    for ours, other in zip(pyramid.run(landmarker, boxes), whole, strict=True):
        assert ours.box == other.box
        assert np.abs(ours.points - other.points).max() < 0.02 * 640
    assert len(pyramid.halves) > 3  # and were made once


def test_where_nothing_is_nothing_is_found(spots):
    assert search_frame(spots.landmarker(), spots.picture(240, 320, seed=2), 1) == []
    image = spots.picture(240, 320, (60, 60, 80))
    assert search(spots.landmarker(), Pyramid(image), [(200.0, 120.0, 90.0, 90.0)]) == []


def test_what_goes_with_the_crop_is_no_object(spots, monkeypatch):
    class Texture(spots.SpotRunner):
        """Sure of its landmarks, whatever it sees."""

        def __call__(self, crops):
            points = spots.SIDE * (0.5 + spots.CORNERS)
            return np.float32([points] * len(crops)), np.ones((len(crops), 3), np.float32)

    landmarker = spots.landmarker()
    landmarker.runner = Texture()
    assert search_frame(landmarker, spots.picture(120, 160, seed=1), 1) == []


def test_overlap():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 5, 5)) == 0
