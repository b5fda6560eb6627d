"""MPII: struct arrays with holes, the lists made from them, validation, head lengths."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.mpii import LAYOUT, NAMES, open_mpii
from lmk.train.datasets.sample import Normaliser

TABLE = "mpii_human_pose_v1_u12_1.mat"
POINTS = np.arange(32, dtype=float).reshape(16, 2) + 1  # counted from 1
VISIBLE = (1, 0, "1", "0", None)  # as numbers, as text and not at all; all the same to us


@pytest.fixture
def person(struct):
    """Return a function that makes an element of annorect; what is given changes a field."""

    def make(points=POINTS, **changes):
        joints = [
            {"x": x, "y": y, "id": np.uint8(index), "is_visible": VISIBLE[index % len(VISIBLE)]}
            for index, (x, y) in enumerate(points)
            if not np.isnan(x)
        ]
        fields = {
            **{"x1": 10, "y1": 20, "x2": 40, "y2": 60},  # the head, diagonal 50
            "annopoints": struct({"point": struct(*joints)}) if joints else None,
            "scale": 2.0,
            "objpos": struct({"x": 101, "y": 201}),
        }
        return {**fields, **changes}

    return make


@pytest.fixture
def write(tmp_path, struct, picture):
    """Return a function that writes the .mat of (name, people, is training) and its images."""

    def data(*images, absent=()):
        annolist = struct(
            *(
                {
                    "image": struct({"name": name}),
                    "annorect": struct(*people) if people else None,
                    "frame_sec": None,
                    "vididx": None,
                }
                for name, people, _ in images
            )
        )
        img_train = np.array([[train for *_, train in images]], np.uint8)
        release = struct({"annolist": annolist, "img_train": img_train, "version": "12"})
        savemat(tmp_path / TABLE, {"RELEASE": release}, do_compression=True)
        for name, *_ in images:
            if name not in absent:
                picture(f"images/{name}")
        return tmp_path

    return data


def entry(name, points=POINTS, validation=0.0, place=(101, 201)):
    """A person of mpii_annotations.json, where all numbers are floats."""
    flags = np.ones((16, 1))
    return {
        "dataset": "MPI",
        "isValidation": validation,
        "img_paths": name,
        "objpos": list(map(float, place)),
        "joint_self": np.nan_to_num(np.hstack([points, flags])).tolist(),
        "scale_provided": 2.0,
    }


def half(name, points=POINTS, place=(101, 201)):
    """A person of train.json or valid.json."""
    return {
        "image": name,
        "joints": np.where(np.isnan(points), -1.0, points).tolist(),
        "joints_vis": (~np.isnan(points[:, 0])).astype(int).tolist(),
        "center": list(map(float, place)),
        "scale": 2.0,
    }


def test_a_person(write, person, tmp_path):
    data = open_mpii(write(("a.jpg", [person()], 1)))
    (sample,) = data.samples
    assert (sample.name, sample.split, data.problems) == ("a.jpg", "train", ())
    np.testing.assert_array_equal(sample.points, POINTS - 1)
    assert sample.points.dtype == np.float32
    # Centre (101, 201 + 15·2), side 200·2·1.25; Matlab's pixel 101 spans 100 to 101.
    assert sample.box == (100.5 - 250, 230.5 - 250, 500, 500)
    assert sample.length == pytest.approx(0.6 * 50)
    assert sample.read().shape == (10, 12, 3)
    assert data.landmark_names == NAMES == LAYOUT.names(tmp_path)
    assert data.scheme.normaliser == Normaliser("head", "sample")
    assert data.scheme.flips == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)


def test_the_builder_leaves_the_holes_of_the_real_file(write, person):
    """Fields that a whole image lacks, and [] for one of several people."""
    tested = {key: person()[key] for key in ("scale", "objpos")}
    people = [person(), person(annopoints=None)]
    root = write(("a.jpg", people, 1), ("b.jpg", [tested], 0), ("c.jpg", [], 1))
    annolist = loadmat(root / TABLE)["RELEASE"]["annolist"][0, 0]
    first, second, third = annolist["annorect"].ravel()
    assert first["annopoints"][0, 1].shape == (0, 0) and first.shape == (1, 2)
    assert second.dtype.names == ("scale", "objpos") and third.shape == (0, 0)
    points = first["annopoints"][0, 0]["point"][0, 0]
    assert [each.tolist() for each in points["is_visible"].ravel()[:5]] == [
        *([[1]], [[0]], ["1"], ["0"], [])
    ]


def test_people_without_points_are_noted(write, person):
    tested = {key: person()[key] for key in ("scale", "objpos")}
    headless = {key: person()[key] for key in ("annopoints", "scale", "objpos")}
    data = open_mpii(
        write(
            ("a.jpg", [person(), person(annopoints=None)], 1),
            ("b.jpg", [tested, tested], 0),
            ("c.jpg", [], 1),
            ("d.jpg", [headless], 1),
        )
    )
    assert [sample.name for sample in data.samples] == ["a.jpg", "d.jpg"]
    assert data.problems == () and np.isnan(data.samples[1].length)
    assert data.notes[:2] == (
        "people of training images without points: a.jpg",
        "people of test images, whose points are withheld: 2, first b.jpg",
    )


def test_joints_that_are_not_listed_are_missing(write, person):
    points = POINTS.copy()
    points[[0, 9]] = np.nan
    (sample,) = open_mpii(write(("a.jpg", [person(points)], 1))).samples
    assert np.flatnonzero(np.isnan(sample.points).all(axis=1)).tolist() == [0, 9]


def test_people_that_cannot_be_used(write, person, struct):
    nowhere = struct({"x": None, "y": 3.0, "id": 0, "is_visible": 1})
    extra = struct({"x": 1.0, "y": 3.0, "id": 16, "is_visible": 1})
    data = open_mpii(
        write(
            ("a.jpg", [person(), person(), person(POINTS + 1, scale=None)], 1),
            ("b.jpg", [person(annopoints=struct({"point": nowhere}))], 1),
            ("c.jpg", [person(annopoints=struct({"point": extra})), person(objpos=None)], 1),
            ("d.jpg", [person(), person(POINTS + 1)], 1),
            absent=["d.jpg"],
        )
    )
    assert [sample.name for sample in data.samples] == ["a.jpg"]
    assert data.problems == (
        "people with a joint that is none of the 16: c.jpg",
        "people who are there twice: a.jpg",
        "people without a place and a size: 2, first a.jpg",
        "people with a point that is no number, or without any: b.jpg",
        "annotated people whose image is absent: 2, first d.jpg",
    )


def test_lists_beside_the_table_say_who_is_for_validation(write, person, struct):
    def at(x):
        return person(POINTS + x, objpos=struct({"x": x, "y": 201}))

    root = write(("a.jpg", [at(1), at(2)], 1), ("b.jpg", [at(1)], 1), ("c.jpg", [at(1)], 1))
    alone = open_mpii(root)
    assert {sample.split for sample in alone.samples} == {"train"}
    assert alone.notes[0].startswith(
        "no validation split: neither mpii_annotations.json nor valid.json"
    )
    listed = [entry("a.jpg", validation=1.0, place=(1, 201)), entry("b.jpg", place=(1, 201))]
    (root / "mpii_annotations.json").write_text(json.dumps(listed))
    data = open_mpii(root)
    found = [(sample.name, sample.split, sample.length) for sample in data.samples]
    assert found == [("a.jpg", "val", 30), ("b.jpg", "train", 30), ("c.jpg", "train", 30)]
    assert data.notes == ("people on validation images who are in no list: a.jpg",)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_list_alone(tmp_path, picture, mark):
    points = POINTS.copy()
    points[3] = np.nan
    people = [entry("a.jpg", points), entry("a.jpg", POINTS + 3, 1.0)]
    (tmp_path / "mpii_annotations.json").write_text(mark + json.dumps(people), "utf-8")
    picture("images/a.jpg")
    data = open_mpii(tmp_path)
    assert [sample.split for sample in data.samples] == ["train", "val"]
    np.testing.assert_array_equal(data.samples[0].points, (points - 1).astype(np.float32))
    assert data.samples[0].box == (-149.5, -19.5, 500, 500)
    assert data.scheme.normaliser == Normaliser("neck to head top", (8, 9))


def test_the_two_halves_alone(tmp_path, picture):
    points = POINTS.copy()
    points[3] = np.nan
    (tmp_path / "annot").mkdir()
    (tmp_path / "annot" / "train.json").write_text(json.dumps([half("a.jpg", points)]))
    (tmp_path / "annot" / "valid.json").write_text(json.dumps([half("b.jpg")]))
    (tmp_path / "annot" / "test.json").write_text(json.dumps([{"image": "c.jpg"}]))
    for name in "abc":
        picture(f"images/{name}.jpg")
    data = open_mpii(tmp_path)
    assert [(sample.name, sample.split) for sample in data.samples] == [
        ("a.jpg", "train"),
        ("b.jpg", "val"),
    ]
    np.testing.assert_array_equal(data.samples[0].points, (points - 1).astype(np.float32))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(missing=st.sets(st.integers(0, 15), max_size=15), shift=st.integers(0, 500))
def test_table_and_lists_say_the_same(write, person, missing, shift):
    points = POINTS + shift
    points[list(missing)] = np.nan
    root = write(("a.jpg", [person(points)], 1))
    table = open_mpii(root)
    (root / TABLE).unlink()
    for name, made in (("mpii_annotations.json", entry), ("train.json", half)):
        (root / name).write_text(json.dumps([made("a.jpg", points)]))
        (sample,) = open_mpii(root).samples
        (root / name).unlink()
        np.testing.assert_array_equal(sample.points, table.samples[0].points)
        assert sample.box == table.samples[0].box


def test_entries_of_a_list_that_are_incomplete(tmp_path, picture):
    picture("images/a.jpg")
    short, lost = entry("a.jpg"), entry("a.jpg")
    short["joint_self"] = short["joint_self"][:15]
    del lost["objpos"]
    people = [entry("a.jpg"), short, lost, [], entry("a.jpg") | {"scale_provided": "?"}]
    (tmp_path / "mpii_annotations.json").write_text(json.dumps(people))
    data = open_mpii(tmp_path)
    assert len(data.samples) == 1
    assert data.problems == (
        "entries of mpii_annotations.json that are incomplete: 4, first number 2",
    )


def test_not_a_single_image(write, person):
    root = write(("a.jpg", [person()], 1), absent=["a.jpg"])
    with pytest.raises(UserError, match=r"whose image is absent: a\.jpg"):
        open_mpii(root)


def test_another_table_or_list(tmp_path, struct):
    savemat(tmp_path / TABLE, {"RELEASE": struct({"version": "12"})})
    with pytest.raises(UserError, match="RELEASE lacks annolist or img_train"):
        open_mpii(tmp_path)
    release = struct({"annolist": struct({"image": None}), "img_train": np.ones((1, 2))})
    savemat(tmp_path / TABLE, {"RELEASE": release})
    with pytest.raises(UserError, match="got 1 images in annolist, 2 in img_train"):
        open_mpii(tmp_path)
    (tmp_path / TABLE).unlink()
    (tmp_path / "mpii_annotations.json").write_text("{}")
    with pytest.raises(UserError, match="got no list, expected one of people"):
        open_mpii(tmp_path)


def test_what_is_recognised(tmp_path):
    (tmp_path / "train.json").write_text('[{"some": "list"}]')
    assert not LAYOUT.recognises(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps([half("a.jpg")]))
    assert LAYOUT.recognises(tmp_path)
    inner = tmp_path / "other" / "mpii_human_pose_v1_u12_2"
    inner.mkdir(parents=True)
    (inner / TABLE).touch()
    assert LAYOUT.recognises(tmp_path / "other")
