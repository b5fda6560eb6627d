"""naming: what is read of a table, what is reported, and what is refused and why."""

import json

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.images import crop, square_around, to_frame
from lmk.runtime.regions import Finding
from lmk.train.datasets.sample import scheme_of
from lmk.train.judge.naming import NamedCrops, check_informative, judge, read_annotated
from lmk.train.judge.point_fit import leave_one_out

NAMES = ("l_eye", "r_eye", "nose")
SIZE = 64


def landmarks(seed, images=10, count=5):
    return np.random.default_rng(seed).normal(32, 8, (images, count, 2)).astype(np.float32)


def annotated(points, names=NAMES):
    crops = np.zeros((len(points), SIZE, SIZE, 3), np.uint8)
    return NamedCrops(scheme_of(names), crops, points.astype(np.float32))


def attached(found):
    return found[:, :3] * 0.8 + found[:, 2:5] * 0.2 + 2


def judged(found, points, ridge=None, **more):
    return judge(leave_one_out(found, points, ridge), annotated(points), **more)


@pytest.fixture
def table(tmp_path):
    """Return a function that writes few.csv: rows of cells, else 6 images with two points each."""

    def write(header="a_x,a_y,b_x,b_y", rows=None, images=6):
        if rows is None:
            rows = [f"{i + 2},{i + 3},{2 * i},{40 - i}" for i in range(images)]
        lines = [f"{i}.png,{row}" for i, row in enumerate(rows)]
        rng = np.random.default_rng(0)
        for i in range(len(rows)):
            pixels = rng.integers(0, 256, (50, 40 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        path = tmp_path / "few.csv"
        path.write_text("\n".join([f"file,{header}", *lines]) + "\n")
        return path

    return write


def test_crops_are_those_of_detection(table):
    path = table()
    seen = read_annotated(path, SIZE, 1.25)
    assert seen.scheme.names == ("a", "b") and seen.crops.shape == (6, SIZE, SIZE, 3)
    pixels = np.asarray(Image.open(path.parent / "2.png"))
    square = square_around((0, 0, 42, 50), 1.25)
    assert np.array_equal(seen.crops[2], crop(pixels, square, SIZE))
    np.testing.assert_allclose(to_frame(seen.points[2], square, SIZE)[0], [4, 5], atol=1e-4)


def test_boxes_say_where_the_object_is(table):
    rows = [f"{i},5,20,10,{i + 9},10" for i in range(5)] + [",,,,30,10"]
    path = table("box_x,box_y,box_w,box_h,a_x,a_y", rows)
    seen = read_annotated(path, SIZE, 1.0)
    square = square_around((3, 5, 20, 10))
    pixels = np.asarray(Image.open(path.parent / "3.png"))
    assert np.array_equal(seen.crops[3], crop(pixels, square, SIZE))
    np.testing.assert_allclose(seen.points[:5, 0], seen.points[:1, 0].repeat(5, 0), atol=1e-4)
    np.testing.assert_allclose(to_frame(seen.points[3], square, SIZE)[0], [12, 10], atol=1e-4)


def test_boxes_are_those_that_detection_will_have(table, tmp_path, monkeypatch):
    """Of objects that are found in films: as they were found, else about the points."""
    monkeypatch.chdir(tmp_path)
    path = table(rows=["10,12,20,16"] * 6)
    seen = read_annotated(path, SIZE, 1.0, Finding("motion", margin=2.0))
    pixels = np.asarray(Image.open(path.parent / "3.png"))
    about = (15.5 - 10, 14.5 - 10, 20.0, 20.0)
    assert np.array_equal(seen.crops[3], crop(pixels, about, SIZE))
    assert seen.photo_px[3] == pytest.approx(20 / SIZE)

    (tmp_path / "walk").mkdir()
    for n in range(6):
        (tmp_path / f"{n}.png").rename(tmp_path / f"walk/img{n}.png")
    path.write_text(path.read_text().replace("\n", "\nwalk/img", 6))
    (tmp_path / "runs").mkdir()
    rows = "".join(f"walk.mp4,{n},0,{n},2,30,30\nwalk.mp4,{n},1,90,90,9,9\n" for n in range(6))
    (tmp_path / "runs/walk-boxes.csv").write_text("source,frame,track,x,y,w,h\n" + rows)
    seen = read_annotated(path, SIZE, 1.0, Finding("motion", margin=2.0))
    assert np.array_equal(seen.crops[3], crop(pixels, (3.0, 2.0, 30.0, 30.0), SIZE))


def test_missing_points_stay_missing(table):
    rows = [*(f"{i},{i},1,5,5" for i in range(6)), "1,1,0,5,5", ",,1,7,7"]
    seen = read_annotated(table("a_x,a_y,a_v,b_x,b_y", rows), SIZE, 1.0)
    assert np.isnan(seen.points[6:, 0]).all() and np.isfinite(seen.points[:, 1]).all()


BAD_TABLES = {
    "few": (dict(images=4), "got 4 images with points, expected 5 or more; annotate more"),
    "no points": (
        dict(header="split", rows=["train"] * 6),
        "got no NAME_x and NAME_y columns, expected those of the points",
    ),
    "few of one": (
        dict(header="a_x,a_y,b_x,b_y", rows=["1,2,3,4"] * 4 + ["1,2,,"] * 2),
        "got 'b' in 4 images, expected 5 or more; annotate it in more, or remove",
    ),
    "name": (
        dict(header="a;b_x,a;b_y", rows=["1,2"] * 6),
        "got the point name 'a;b', expected letters, digits",
    ),
    "no name": (dict(header="_x,_y", rows=["1,2"] * 6), r"got landmarks called \[''\]"),
    "same name": (dict(header="a_x,a_y,a_x", rows=["1,2,3"] * 6), "'a_x' is there twice"),
    "outside": (
        dict(header="a_x,a_y", rows=["1,2"] * 5 + ["1,500"]),
        "got 'a' at 1, 500 in .* pixels, expected it inside",
    ),
    "box": (
        dict(header="a_x,a_y,box_x,box_y,box_w,box_h", rows=["1,2,1,1,0,5"] * 6),
        "line 2: got 1, 1, 0, 5 for box_x,box_y,box_w,box_h",
    ),
}


@pytest.mark.parametrize(("content", "complaint"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_bad_tables(table, content, complaint):
    with pytest.raises(UserError, match=f"few.csv.*{complaint}"):
        read_annotated(table(**content), SIZE, 1.0)


def test_names_are_kept_as_they_are(table):
    path = table("l_eye_x,l_eye_y,Left ear.2_x,Left ear.2_y")
    assert read_annotated(path, SIZE, 1.0).scheme.names == ("l_eye", "Left ear.2")


def test_an_image_twice(table):
    path = table()
    path.write_text(path.read_text() + "3.png,1,2,3,4\n")
    with pytest.raises(UserError, match=r"few\.csv: got 3\.png twice"):
        read_annotated(path, SIZE, 1.0)


def test_an_image_that_exif_rotates(table):
    path = table()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 50)).save(path.parent / "1.png", exif=exif)
    with pytest.raises(UserError, match=r"1\.png: got an image that EXIF rotates"):
        read_annotated(path, SIZE, 1.0)


def test_an_image_that_is_not_there(table):
    path = table()
    (path.parent / "4.png").unlink()
    with pytest.raises(UserError, match=r"4\.png: got no such file"):
        read_annotated(path, SIZE, 1.0)


def test_what_is_reported(tmp_path):
    found = landmarks(0)
    points = attached(found)
    report = judged(found, points, ridge=1e-9, crop_scale=1.25)
    check_informative(report, "few.csv")
    json.dumps(report, allow_nan=False)
    assert report["normaliser"] == "inter-ocular"
    assert (report["images"], report["better_images"]) == (10, 10)
    assert report["error_px"] < 1e-3 and report["chance"] == pytest.approx(2**-10)
    rest = (points.sum(axis=0) - points) / 9
    off = np.linalg.norm(points - rest, axis=2)
    eyes = np.linalg.norm(points[:, 0] - points[:, 1], axis=1)
    assert report["mean_shape_px"] == pytest.approx(off.mean(), rel=1e-4)
    expected = off.mean() * 1.25 / 64 * 100
    assert report["mean_shape_box_percent"] == pytest.approx(expected, rel=1e-4)
    nose = report["points"][2]
    assert (nose["name"], nose["images"]) == ("nose", 10)
    assert nose["mean_shape_percent"] == pytest.approx((off[:, 2] / eyes).mean() * 100, rel=1e-4)


def test_names_without_a_length(tmp_path):
    found = landmarks(0)
    points = attached(found)
    report = judge(leave_one_out(found, points), annotated(points, ("a", "b", "c")))
    assert report["normaliser"] is None and "error_percent" not in report


def test_an_image_without_a_point_and_points_with_gaps():
    found = landmarks(0)
    points = attached(found)
    points[0] = np.nan
    points[1, 0] = np.nan  # an eye: that image has no length
    report = judged(found, points, ridge=1e-9)
    check_informative(report, "few.csv")
    assert report["images"] == 9 and [row["images"] for row in report["points"]] == [8, 9, 9]
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("images", [5, 8, 12])
def test_random_points_are_refused(images):
    """Of many draws hardly one passes: chance is bounded by what the rule says."""
    passed = 0
    for seed in range(40):
        found, points = landmarks(seed, images), landmarks((seed, 1), images, 3)
        try:
            check_informative(judged(found, points), "few.csv")
        except UserError as error:
            message = str(error)
        else:
            passed += 1
    assert passed <= 2
    assert message.startswith("few.csv: got points ") and "annotate more images" in message


def test_five_images_are_enough_if_all_say_so():
    found = landmarks(3, 5)
    points = attached(found)
    check_informative(judged(found, points, ridge=1e-6), "few.csv")
    points[2] += 100
    with pytest.raises(UserError, match="nearer in [0-4] of 5 images"):
        check_informative(judged(found, points, ridge=1e-6), "few.csv")


def test_points_that_never_move_are_refused():
    """The mean shape says all there is to say."""
    found = landmarks(0)
    still = np.repeat(attached(found)[:1], 10, axis=0)
    with pytest.raises(UserError, match="0.0 px off by their mean shape"):
        check_informative(judged(found, still), "few.csv")
