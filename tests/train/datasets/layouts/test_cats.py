"""CAT: the line of an annotation, the file known to be wrong, copies and strays."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lmk.train.datasets.layouts.cats import FOLDERS, LAYOUT

# An upright, symmetric cat: eyes, mouth, left ear and right ear, each from left to right.
CAT = [(40, 50), (60, 50), (50, 70), (26, 37), (24, 17), (38, 28), (62, 28), (76, 17), (74, 37)]


def line(points=CAT):
    return " ".join(["9", *(f"{x} {y}" for x, y in points)]) + " "  # the real ones end in a space


def put(root, name, text=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 90), (90, 60, 50)).save(path)
    path.with_name(f"{path.name}.cat").write_text(line() if text is None else text, newline="")


@pytest.fixture
def root(tmp_path):
    for index, folder in enumerate(FOLDERS):
        put(tmp_path, f"{folder}/0000{index}001_000.jpg")
    return tmp_path


def test_all_folders(root):
    (root / "CAT_03/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    data = LAYOUT.open(root)
    assert LAYOUT.recognises(root) and data.problems == ()
    assert Counter(sample.split for sample in data.samples) == {"train": 4, "test": 3}
    assert [s.name[:6] for s in data.samples if s.split == "test"] == ["CAT_04", "CAT_05", "CAT_06"]
    names = "l_eye r_eye mouth l_ear1 l_ear2 l_ear3 r_ear1 r_ear2 r_ear3"
    assert data.landmark_names == tuple(names.split()) == LAYOUT.names(root)
    assert data.scheme.normaliser.lengths(data.samples[0].points[None]).tolist() == [20]
    for sample in data.samples:
        np.testing.assert_array_equal(sample.points, np.array(CAT, np.float32))
        assert sample.read().shape == (90, 100, 3)


def test_mirror_twins_lie_opposite(root):
    """The points of both ears run from left to right, so the first is the twin of the last."""
    data = LAYOUT.open(root)
    points = data.samples[0].points
    mirrored = np.stack([100 - points[:, 0], points[:, 1]], 1)
    np.testing.assert_array_equal(mirrored[list(data.scheme.flips)], points)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " \r\n"])
def test_ends_of_the_line(root, end):
    put(root, "CAT_00/1_1.jpg", line().rstrip() + end)
    assert len(LAYOUT.open(root).samples) == 8


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "got 0 numbers, expected 9 and then 18"),
        (line()[:20], "numbers, expected 9 and then 18"),
        (line() + "7", "got 20 numbers"),
        ("8" + line()[1:], "expected 9 and then 18"),
        (line().replace("40", "x"), "got something else than numbers"),
    ],
)
def test_annotations_that_cannot_be_read(root, text, complaint):
    put(root, "CAT_02/1_1.jpg", text)
    data = LAYOUT.open(root)
    (problem,) = data.problems
    assert problem.startswith("points that cannot be read: CAT_02/1_1.jpg.cat: ")
    assert complaint in problem and len(data.samples) == 7


def test_what_is_missing_or_of_no_use(root):
    (root / "CAT_01/00001001_000.jpg.cat").unlink()
    (root / "CAT_06/00006001_000.jpg").unlink()
    put(root, "CAT_02/1_1.jpg", line([CAT[0], *CAT[:1], *CAT[2:]]))
    put(root, "CAT_02/1_2.jpg", line().replace("40 ", "nan "))
    data = LAYOUT.open(root)
    assert len(data.samples) == 5
    assert data.problems == (
        "images without points: CAT_01/00001001_000.jpg",
        "annotations whose inter-ocular length is zero: CAT_02/1_1.jpg",
        "annotations that are not finite: CAT_02/1_2.jpg",
        "points whose image is absent: CAT_06/00006001_000.jpg.cat",
        "folders without images: CAT_06/",
    )


def test_the_annotation_known_to_be_wrong(root):
    """It is left out, whether its correction is there or not; only the latter is a problem."""
    put(root, "CAT_00/00000003_015.jpg")
    put(root, "CAT_00/00000003_019.jpg")
    for name in ("00000003_015.jpg.cat", "00000003_019.jpg"):
        (root / "CAT_00" / name).unlink()
    data = LAYOUT.open(root)
    assert len(data.samples) == 7
    assert data.problems == (
        "images without points: CAT_00/00000003_015.jpg",
        "annotation known to be wrong, whose correction CAT_00/00000003_015.jpg.cat is absent: "
        "CAT_00/00000003_019.jpg.cat",
    )
    put(root, "CAT_00/00000003_015.jpg")
    data = LAYOUT.open(root)
    assert data.problems == ()
    assert "CAT_00/00000003_015.jpg" in [sample.name for sample in data.samples]


def test_an_image_is_not_read_with_the_wrong_annotation(root):
    put(root, "CAT_00/00000003_015.jpg")
    put(root, "CAT_00/00000003_019.jpg")
    data = LAYOUT.open(root)
    assert data.problems == ("images without points: CAT_00/00000003_019.jpg",)
    assert len(data.samples) == 8


def test_a_second_copy_is_not_read(root):
    for folder in FOLDERS:
        put(root, f"cats/{folder}/1_1.jpg")
    data = LAYOUT.open(root)
    assert len(data.samples) == 7
    assert data.problems == ("second copy of the data set, not read: cats/",)
