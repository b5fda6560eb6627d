"""What `lmk data check` counts and complains of."""

import numpy as np
import pytest
from scipy.io import savemat

from lmk.runtime.errors import UserError
from lmk.train.datasets import open_dataset
from lmk.train.datasets.check import check, format_check


@pytest.fixture
def table(tmp_path, picture):
    """A csv set of 12×10 pixels: two images of a split each, one without it or any point."""
    for name in "abc":
        picture(f"{name}.png")
    rows = ["a.png,train,1,2,3,4", "b.png,test,1,2,,", "c.png,,,,,"]
    put(tmp_path, "file,split,l_eye_x,l_eye_y,r_eye_x,r_eye_y", *rows)
    return tmp_path


def put(folder, *lines):
    (folder / "annotations.csv").write_text("\n".join(lines))


def checked(folder, layout="csv", **options):
    return check(layout, open_dataset(str(folder), layout), **options)


def test_counts(table):
    seen = []
    report = checked(table, progress=lambda done, total: seen.append((done, total)))
    assert (report.layout, report.name) == ("csv", table.name)
    assert (report.images, report.samples, report.annotated, report.landmarks) == (3, 3, 2, 2)
    assert report.splits == {"train": 1, "test": 1, "": 1}
    assert report.normaliser == "inter-ocular" and report.decoded
    assert report.problems == report.notes == () and seen == [(1, 3), (2, 3), (3, 3)]
    assert format_check(report).endswith("all is well")


def test_corrupt_and_absent_images(table):
    (table / "a.png").write_bytes((table / "a.png").read_bytes()[:40])
    (table / "b.png").unlink()
    (problem,) = checked(table).problems
    assert problem.startswith(f"images that cannot be read: 2, first {table / 'a.png'}: cannot be")
    unread = checked(table, decode=False)
    assert unread.problems == () and not unread.decoded


@pytest.mark.parametrize(("x", "far"), [(-6, False), (-7, True), (17, False), (18, True)])
def test_points_far_outside_their_image(table, x, far):
    """More than half the longer side, 6 of 12 pixels; a cut-off limb lies a little outside."""
    put(table, "file,a_x,a_y,b_x,b_y", f"a.png,{x},1,,", "b.png,1,1,2,2")
    problems = checked(table).problems
    assert problems == (("objects with a point far outside their image: a.png",) if far else ())


def test_several_objects_share_an_image(table, picture):
    """It is counted and decoded once."""
    put(table, "file,split,a_x,a_y,b_x,b_y", *["a.png,train,1,2,3,4"] * 2)
    seen = []
    report = checked(table, progress=lambda done, total: seen.append((done, total)))
    assert (report.images, report.samples, seen) == (1, 2, [(1, 1)])


def test_what_the_layout_left_out_is_told(tmp_path, picture):
    picture("images/im0001.jpg")
    savemat(tmp_path / "joints.mat", {"joints": np.ones((3, 14, 2000))})
    report = checked(tmp_path, "lsp")
    assert report.problems == (
        "images of joints.mat that are absent: 1,999, first images/im0002.jpg",
        "annotations whose torso length is zero or missing: images/im0001.jpg",  # all points are 1
    )


def test_splits_of_unknown_names_are_told(table):
    put(table, "file,split,a_x,a_y,b_x,b_y", "a.png,tset,1,1,2,2", "b.png,Train,1,1,2,2")
    (note,) = checked(table).notes
    assert note == "split 'tset' is learnt from; train, val and test are known"


def test_a_length_of_zero_is_told(table):
    put(table, "file,l_eye_x,l_eye_y,r_eye_x,r_eye_y", "a.png,1,1,1,1", "b.png,1,1,5,1")
    (problem,) = checked(table).problems
    assert problem == "annotations whose inter-ocular length is zero or missing: a.png"


def test_unlabelled_images(tmp_path, picture):
    picture("x/a.png")
    report = checked(tmp_path, "folder")
    assert (report.images, report.annotated, report.landmarks) == (1, 0, 0)
    assert "landmarks" not in format_check(report)


def test_another_layout(tmp_path, picture):
    picture("images/a.jpg")
    with pytest.raises(UserError) as caught:
        checked(tmp_path, "lsp")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: got images, expected joints.mat (3×14×N or 14×3×N)")
    assert "(layout lsp); check the folder and --layout" in message


def test_as_it_is_printed(table):
    (table / "c.png").unlink()
    lines = format_check(checked(table)).splitlines()
    assert lines[:5] == [
        "layout           csv",
        "images           3",
        "annotated        2 of 3 samples",
        "splits           train 1, test 1, none 1",
        "landmarks        2, errors in % of the inter-ocular",
    ]
    assert lines[5].startswith("problem          images that cannot be read: ")
    assert lines[6] == f"{table.name:16} 1 problem" and len(lines) == 7
    assert "images           3, not decoded" in format_check(checked(table, decode=False))


def test_notes_are_no_problems(tmp_path, picture):
    for tree in ("ut-zap50k-images", "ut-zap50k-images-square"):
        for category in ("Boots", "Sandals", "Shoes", "Slippers"):
            picture(f"{tree}/{category}/Ankle/Brand./1.jpg")
    report = checked(tmp_path, "zappos")
    assert len(report.notes) == 1 and not report.problems
    assert f"note             {report.notes[0]}" in format_check(report).splitlines()
