"""COCO key points: several files, objects and folders, and all that can be wrong with them."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.coco import LAYOUT, landmark_names, open_coco
from lmk.train.datasets.sample import Normaliser

CATEGORY = {"id": 1, "name": "cat", "keypoints": ["left_eye", "right_eye", "nose"]}
POINTS = [3, 4, 2, 5, 4.5, 1, 0, 0, 0]


def annotation(identity, image, keypoints=POINTS, **more):
    fields = {"id": identity, "image_id": image, "category_id": 1, "bbox": [1, 2, 3.5, 4]}
    return {**fields, "keypoints": keypoints, "num_keypoints": 2, "iscrowd": 0, **more}


def content(annotations, names=("a.jpg",), categories=(CATEGORY,)):
    """In the order of COCO's own files."""
    images = [{"id": index, "file_name": name} for index, name in enumerate(names)]
    return {
        "info": {"year": 2017},
        "images": images,
        "annotations": annotations,
        "categories": list(categories),
    }


@pytest.fixture
def write(tmp_path):
    """Return a function that writes annotations/NAME.json and returns the folder."""

    def data(values, name="annotations/person_keypoints_train2017.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values))
        return tmp_path

    return data


def test_objects_boxes_and_missing_points(write, picture):
    picture("train2017/a.jpg")
    other = [1, 1, 2, 2, 2, 2, 3, 3, 2]
    root = write(content([annotation(7, 0), annotation(8, 0, other, bbox=None)]))
    data = open_coco(root)
    first, second = data.samples
    assert first.name == second.name == "train2017/a.jpg" and first.split == "train"
    expected = np.array([[3, 4], [5, 4.5], [np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(first.points, expected)
    assert first.points.dtype == np.float32
    assert first.box == (1, 2, 3.5, 4) and second.box is None
    assert first.read().shape == (10, 12, 3) and not data.problems
    assert data.landmark_names == ("left_eye", "right_eye", "nose") == landmark_names(root)
    assert data.scheme.normaliser == Normaliser("inter-ocular", (0, 1))
    assert data.scheme.flips == (1, 0, 2)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.lists(st.integers(-9, 999), min_size=6, max_size=6),
    flags=st.tuples(*[st.integers(0, 2)] * 3),
)
def test_points_come_back_as_they_were(write, picture, values, flags):
    picture("a.jpg")
    points = np.array(values, np.float32).reshape(3, 2)
    keypoints = np.column_stack([points, flags]).ravel().tolist()
    always = annotation(1, 0, [0.5, 0, 2] * 3)
    samples = open_coco(write(content([always, annotation(2, 0, keypoints)]))).samples
    assert len(samples) == (2 if any(flags) else 1)
    if any(flags):
        missing = np.array(flags) == 0
        np.testing.assert_array_equal(np.isnan(samples[1].points).all(axis=1), missing)
        np.testing.assert_array_equal(samples[1].points[~missing], points[~missing])


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("annotations/person_keypoints_val2017.json", "val"),
        ("annotations/ap10k-test-split1.json", "test"),
        ("train.json", "train"),
        ("Validation.json", "val"),
        ("interval.json", ""),
        ("landmarks.json", ""),
    ],
)
def test_splits_are_read_off_the_name(write, picture, file, split):
    picture("a.jpg")
    (sample,) = open_coco(write(content([annotation(1, 0)]), file)).samples
    assert sample.split == split


@pytest.mark.parametrize(
    ("listed", "lies"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "images/a.jpg"),
        ("a.jpg", "train2017/a.jpg"),
        ("a.jpg", "images/train2017/a.jpg"),
        ("train2017/a.jpg", "train2017/a.jpg"),
        ("deep\\down\\a.jpg", "images/deep/down/a.jpg"),
    ],
)
def test_where_images_may_lie(write, picture, listed, lies):
    picture(lies)
    (sample,) = open_coco(write(content([annotation(1, 0)], [listed]))).samples
    assert sample.name == lies


def test_several_files_and_others_beside_them(write, picture):
    picture("train2017/a.jpg")
    picture("val2017/a.jpg")
    write({"images": [], "annotations": [], "categories": []}, "annotations/instances_val2017.json")
    write(content([annotation(1, 0)]))
    root = write(content([annotation(1, 0)]), "annotations/person_keypoints_val2017.json")
    found = [(sample.name, sample.split) for sample in open_coco(root).samples]
    assert found == [("train2017/a.jpg", "train"), ("val2017/a.jpg", "val")]


def test_crowds_and_objects_without_points_are_passed_over(write, picture):
    picture("a.jpg")
    others = [
        annotation(2, 0, [0] * 9),
        annotation(3, 0, [1, 1, 2] * 3, iscrowd=1),
        annotation(4, 0, []),
        {"id": 5, "image_id": 0, "category_id": 2},
    ]
    data = open_coco(write(content([annotation(1, 0), *others])))
    assert len(data.samples) == 1 and not data.problems


def test_what_is_left_out(write, picture):
    picture("a.jpg")
    nan = float("nan")
    wrong = [
        annotation(1, 0, [1, 2, 2] * 2),
        annotation(2, 0, [1, 2, 2] * 2 + [1, 2, None]),
        annotation(3, 0, [1, nan, 2] * 3),
        annotation(10, 0, [10**400, 2, 2] * 3),
        annotation(4, 0, bbox=[1, 2, 0, 4]),
        annotation(5, 0, bbox=[1, nan, 3, 4]),
        annotation(6, 0, bbox=[1, 2, 3]),
        annotation(7, 99),
        annotation(8, 1),
        annotation(9, 0),
    ]
    data = open_coco(write(content([annotation(0, 0), *wrong], ["a.jpg", "b.jpg"]), "k.json"))
    assert len(data.samples) == 1
    assert data.problems == (
        "annotations with other than 3 numbers for each of 3 landmarks (k.json): "
        "2, first annotation 1",
        "annotations with a point that is no number (k.json): 2, first annotation 2",
        "annotations with a box without area (k.json): 2, first annotation 4",
        "annotations with a box other than 4 numbers (k.json): annotation 6",
        "annotations of images that are not listed (k.json): annotation 7",
        "annotated objects whose image is absent (k.json): b.jpg",
        "objects that are there twice (k.json): annotation 9",
    )


def test_the_same_landmarks_for_several_categories(write, picture):
    picture("a.jpg")
    dog = CATEGORY | {"id": 2, "name": "dog"}
    root = write(content([annotation(1, 0, category_id=2)], categories=[CATEGORY, dog]))
    assert len(open_coco(root).samples) == 1


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"images": [], "keypoints": 1}, "got no list 'annotations', expected a COCO file"),
        (content([]) | {"images": [{"id": 1}]}, "got an image without id or file_name"),
        (content([]) | {"images": ["a.jpg"]}, "got an image without id or file_name"),
        (content([]), "nothing that can be used"),
        (content([], categories=[{"id": 1, "name": "cat"}]), "got no category with landmarks"),
    ],
)
def test_files_that_are_something_else(write, values, complaint):
    with pytest.raises(UserError, match=complaint):
        open_coco(write(values))


def test_recognised_by_the_ends_of_a_file(write, tmp_path):
    assert not LAYOUT.recognises(tmp_path)
    write({"keypoints": [1, 2]}, "results.json")
    write({"images": [], "annotations": [], "categories": []}, "boxes.json")
    assert not LAYOUT.recognises(tmp_path)
    assert LAYOUT.recognises(write(content([annotation(1, 0)]), "some.json"))


def test_names_are_found_without_reading_everything(write):
    """At the end of the file, at its start, or in the middle of it."""
    many = [annotation(index, 0) for index in range(2000)]
    values = content(many)
    expected = ("left_eye", "right_eye", "nose")
    assert landmark_names(write(values)) == expected
    assert landmark_names(write(dict(reversed(values.items())))) == expected
    middle = {"images": values["images"] * 5000, "categories": [CATEGORY], "annotations": many}
    assert landmark_names(write(middle)) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_lie_on_the_picture_however_it_is_stored(write, turned, tmp_path, orientation):
    upright, at_upright, stored, at_stored = turned(tmp_path / "a.png", orientation)
    cases = [(None, None, at_upright), (*upright, at_upright)]
    if upright != stored:
        cases.append((*stored, at_stored))
    for width, height, (x, y) in cases:
        values = content([annotation(1, 0, [x, y, 2] * 3)], ["a.png"])
        values["images"][0] |= {"width": width, "height": height}
        (sample,) = open_coco(write(values)).samples
        assert sample.read()[y, x].tolist() == [250, 0, 0]


def test_images_outside_the_folder_are_not_read(write, picture, tmp_path):
    picture("a.jpg")
    picture("../b.jpg")
    found = open_coco(write(content([annotation(1, 0), annotation(2, 1)], ["a.jpg", "../b.jpg"])))
    assert [sample.name for sample in found.samples] == ["a.jpg"]
    assert "whose image is absent" in found.problems[0] and "../b.jpg" in found.problems[0]
