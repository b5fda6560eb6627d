"""Objects that move -> boxes that go with them, are lost with them and found with them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.regions.fixed import Boxes
from lmk.runtime.regions.region import Target, overlap
from lmk.runtime.regions.track import Tracker
from lmk.runtime.sources.cuts import CutDetector

SIZE = (160, 240)


def follow(landmarker, region, images, first=0, rate=25.0, is_cut=None):
    """What a pipeline does with a closed region: the detections of each frame."""
    found, is_cut = [], is_cut or CutDetector()
    for index, image in enumerate(images, first):
        frame = Frame("clip", index, index / rate, image, is_cut=is_cut(image))
        targets = region.targets(frame)
        boxes = [target.box for target in targets]
        each = landmarker.batch([image] * len(boxes), boxes)
        pairs = zip(each, targets, strict=True)
        found.append(region.update(frame, [replace(one, track=t.track) for one, t in pairs]))
    return found


def square(x, y, side):
    return (x - side / 2, y - side / 2, side, side)


def start(*boxes):
    return Boxes(lambda frame: [Target(box) for box in boxes])


def test_a_box_goes_with_its_object(spots):
    path = [(60 + 3 * t, 80 + 20 * np.sin(t / 6), 60 * 1.01**t) for t in range(40)]
    images = [spots.picture(*SIZE, thing, seed=1) for thing in path]
    landmarker = spots.landmarker()
    found = follow(landmarker, Tracker(landmarker, start(square(*path[0]))), images)
    for detections, thing in zip(found, path, strict=True):
        assert len(detections) == 1
        assert overlap(detections[0].box, square(*thing)) > 0.75
        expected = np.array(thing[:2]) + spots.CORNERS * thing[2] - 0.5
        assert np.abs(detections[0].points - expected).max() < 1


def test_a_box_does_not_drift(spots):
    rng = np.random.default_rng(0)
    images = [spots.picture(96, 96, (48 + 2 * np.sin(t), 48 + rng.normal(), 50)) for t in range(20)]
    landmarker = spots.landmarker()
    box = (20.0, 24.0, 60.0, 60.0)  # the user's own margin, which is kept
    found = follow(landmarker, Tracker(landmarker, start(box)), images * 5)
    sides = [detections[0].box[2] for detections in found]
    assert min(sides) > 57 and max(sides) < 63
    assert overlap(found[-1][0].box, found[19][0].box) > 0.95


def test_without_a_start_the_object_is_searched(spots):
    landmarker = spots.landmarker()
    images = [spots.picture(*SIZE, (150 + t, 70, 60)) for t in range(5)]
    found = follow(landmarker, Tracker(landmarker), images)
    assert all(len(each) == 1 for each in found)
    assert np.abs(found[-1][0].points - ([154, 70] + spots.CORNERS * 60 - 0.5)).max() < 1


def test_a_lost_object_gives_no_rows_and_is_found_again(spots):
    landmarker = spots.landmarker()
    here, there = (60, 70, 60), (180, 90, 60)
    images = [spots.picture(*SIZE, here)] * 5 + [spots.picture(*SIZE)] * 20
    found = follow(landmarker, tracker := Tracker(landmarker, start(square(*here))), images)
    assert [len(each) for each in found] == [1] * 5 + [1] * 4 + [0] * 16
    assert found[5][0].low.all()
    images = [spots.picture(*SIZE, there)] * 40
    found = follow(landmarker, tracker, images, first=25)
    assert len(found[-1]) == 1 and found[-1][0].track == 0
    assert overlap(found[-1][0].box, square(*there)) > 0.8  # as large as the box of the user was


def test_a_small_object_is_found_again_where_it_would_not_be_found_at_first(spots):
    landmarker, size = spots.landmarker(), (400, 600)
    landmarker.runner = spots.NearRunner()
    here, there = spots.picture(*size, (100, 200, 40)), spots.picture(*size, (250, 130, 40))
    assert follow(landmarker, Tracker(landmarker), [there] * 5)[-1] == []
    images = [here] * 5 + [spots.picture(*size)] * 10 + [there] * 160
    found = follow(landmarker, Tracker(landmarker, start(square(100, 200, 40))), images)
    assert len(found[14]) == 0 and len(found[-1]) == 1
    assert overlap(found[-1][0].box, square(250, 130, 40)) > 0.7


def test_an_object_that_was_lost_small_is_found_again_when_it_is_large(spots):
    landmarker, size = spots.landmarker(), (400, 600)
    landmarker.runner = spots.NearRunner()
    images = [spots.picture(*size, (100, 200, 40))] * 5 + [spots.picture(*size)] * 10
    images += [spots.picture(*size, (400, 200, 240))] * 120
    found = follow(landmarker, Tracker(landmarker, start(square(100, 200, 40))), images)
    assert len(found[-1]) == 1


def test_a_second_object_as_small_as_the_first_is_found(spots):
    landmarker = spots.landmarker()
    landmarker.runner = spots.NearRunner()
    images = [spots.picture(400, 600, (100, 200, 40), (330, 130, 40))] * 300
    tracker = Tracker(landmarker, start(square(100, 200, 40)), max_tracks=2)
    assert len(follow(landmarker, tracker, images)[-1]) == 2


def test_a_search_costs_a_few_crops_a_frame(spots):
    landmarker = spots.landmarker()
    follow(landmarker, tracker := Tracker(landmarker), [spots.picture(*SIZE)])
    landmarker.runner.calls.clear()
    follow(landmarker, tracker, [spots.picture(*SIZE)] * 40, first=1)
    assert sum(landmarker.runner.calls) <= 40 * 4


def test_several_objects_have_a_track_each(spots):
    landmarker = spots.landmarker()
    images = [spots.picture(*SIZE, (50 + t, 60, 60), (180, 100 - t, 50)) for t in range(10)]
    found = follow(landmarker, Tracker(landmarker, max_tracks=2), images)
    assert [sorted(one.track for one in each) for each in found] == [[0, 1]] * 10
    left = {min(each, key=lambda one: one.box[0]).track for each in found}
    assert len(left) == 1
    boxes = (square(50, 60, 60), square(180, 100, 50))
    found = follow(landmarker, Tracker(landmarker, start(*boxes)), images)
    assert [len(each) for each in found] == [2] * 10


def test_two_tracks_on_one_object_become_one(spots):
    landmarker = spots.landmarker()
    boxes = (square(60, 60, 60), square(64, 62, 62))
    images = [spots.picture(*SIZE, (60, 60, 60))] * 5
    found = follow(landmarker, Tracker(landmarker, start(*boxes)), images)
    assert len(found[-1]) == 1


def test_a_cut_ends_a_track_and_its_number(spots):
    landmarker = spots.landmarker()
    one = spots.picture(*SIZE, (60, 70, 60), seed=4)
    other = spots.picture(*SIZE, (170, 90, 60), seed=8)
    found = follow(landmarker, Tracker(landmarker), [one] * 3 + [other] * 3)
    tracks = [one.track for each in found for one in each]
    assert tracks == [0] * 3 + [1] * 3


def test_named_points_go_with_the_landmarks_they_were_made_of(spots):
    """One point, in the middle, says nothing of a size; the spots do."""
    landmarker = spots.landmarker()
    landmarker.runner = spots.NamedRunner()
    path = [(60 + 3 * t, 80, 60 * 1.01**t) for t in range(30)]
    images = [spots.picture(*SIZE, thing, seed=1) for thing in path]
    found = follow(landmarker, Tracker(landmarker), images)
    for detections, thing in zip(found, path, strict=True):
        assert len(detections) == 1 and landmarker.names == ("middle",)
        assert np.abs(detections[0].points - (thing[0] - 0.5, thing[1] - 0.5)).max() < 2
    assert found[-1][0].box[2] > 1.2 * found[0][0].box[2]


def test_a_small_box_or_one_beyond_the_frame_is_lost(spots):
    landmarker = spots.landmarker()
    images = [spots.picture(*SIZE, (200 + 10 * t, 60, 50)) for t in range(12)]
    found = follow(landmarker, Tracker(landmarker, start(square(200, 60, 50))), images)
    assert found[0] and not found[-1]


@pytest.mark.parametrize("stop", [1, 7, 14])
def test_goes_on_where_it_was(spots, stop):
    landmarker = spots.landmarker()
    images = [spots.picture(*SIZE, (60 + 2 * t, 70, 60)) for t in range(10)]
    images += [spots.picture(*SIZE)] * 7 + [spots.picture(*SIZE, (120, 80, 60))] * 6
    whole = follow(landmarker, Tracker(landmarker), images)
    first, second = Tracker(landmarker), Tracker(landmarker)
    cuts = CutDetector()
    parts = follow(landmarker, first, images[:stop], is_cut=cuts)
    second.restore(json.loads(json.dumps(first.state())))
    parts += follow(landmarker, second, images[stop:], first=stop, is_cut=cuts)
    assert [len(each) for each in parts] == [len(each) for each in whole]
    for a, b in zip(sum(map(list, parts), []), sum(map(list, whole), []), strict=True):
        assert (a.box, a.track) == (b.box, b.track)
        np.testing.assert_array_equal(a.points, b.points)


def test_images_without_time_are_a_sequence(spots):
    landmarker = spots.landmarker()
    images = [spots.picture(*SIZE, (60 + 4 * t, 70, 60)) for t in range(15)]
    region = Tracker(landmarker, start(square(60, 70, 60)))
    assert all(len(each) == 1 for each in follow(landmarker, region, images, rate=float("inf")))


def test_no_tracks_at_all_are_refused(spots):
    with pytest.raises(UserError, match="tracks: got at most 0, expected 1 or more"):
        Tracker(spots.landmarker(), max_tracks=0)
