"""CelebA and MAFL: trees, splits, and lists that do not fit the images."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.celeba import CELEBA, MAFL

COLUMNS = (
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y "
    "leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
)
POINTS = "  69  109  106  113   77  142   73  152  108  154"
NAMES = [f"{index:06}.jpg" for index in range(1, 9)]
OFFICIAL = ("Img/img_align_celeba", "Anno", "Eval")
FLAT = ("img_align_celeba", ".", ".")
MIRROR = ("Img/img_align_celeba_hq", "Anno", "Eval")


def lines(names, points=POINTS):
    return "".join(f"{name} {points}\n" for name in names)


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a CelebA of eight images: 5 train, 1 val, 2 test."""

    def write(tree=OFFICIAL, rows=None, count=8, mafl=True, newline="\n"):
        images, annotations, partition = (tmp_path / name for name in tree)
        for folder in (images, annotations, partition, tmp_path / "MAFL"):
            folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            Image.new("RGB", (178, 218), (90, 60, 50)).save(images / name)
        texts = {
            annotations / "list_landmarks_align_celeba.txt": f"{count}\n{COLUMNS} \n"
            + (rows or lines(NAMES)),
            partition / "list_eval_partition.txt": "".join(
                f"{name} {part}\n" for name, part in zip(NAMES, "00000122", strict=True)
            ),
        }
        if mafl:
            texts[tmp_path / "MAFL/training.txt"] = "000001.jpg\n000002.jpg\n000006.jpg\n"
            texts[tmp_path / "MAFL/testing.txt"] = "000003.jpg\n000008.jpg\n"
        for path, text in texts.items():
            path.write_text(text, newline=newline)
        return tmp_path

    return write


def splits(data):
    return Counter(sample.split for sample in data.samples)


@pytest.mark.parametrize("tree", [OFFICIAL, FLAT, MIRROR])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_trees(make, tree, newline):
    root = make(tree, newline=newline)
    data = CELEBA.open(root)
    assert CELEBA.recognises(root) and CELEBA.names(root) == data.landmark_names
    assert data.landmark_names == ("l_eye", "r_eye", "nose", "l_mouth", "r_mouth")
    assert data.name == root.name and data.problems == ()
    assert data.scheme.normaliser.pair == (0, 1) and data.scheme.flips == (1, 0, 2, 4, 3)
    assert [sample.name for sample in data.samples] == NAMES
    first = data.samples[0]
    expected = [[69, 109], [106, 113], [77, 142], [73, 152], [108, 154]]
    np.testing.assert_array_equal(first.points, np.array(expected, np.float32))
    assert first.read().shape == (218, 178, 3)
    assert first.box == pytest.approx((17.8, 21.8, 142.4, 174.4))  # the same for all


def test_the_test_of_mafl_is_held_out_of_celeba(make):
    """As in the paper: the official partition puts 000003 among the training images."""
    data = CELEBA.open(make())
    assert splits(data) == {"train": 6, "test": 2}
    test = [sample.name for sample in data.samples if sample.split == "test"]
    assert test == ["000003.jpg", "000008.jpg"]


def test_official_partition_without_the_lists_of_mafl(make):
    root = make(mafl=False)
    assert splits(CELEBA.open(root)) == {"train": 5, "val": 1, "test": 2}
    assert not MAFL.recognises(root)


def test_mafl(make):
    data = MAFL.open(make())
    found = {sample.name: sample.split for sample in data.samples}
    train = ["000001.jpg", "000002.jpg", "000006.jpg"]
    assert found == {**dict.fromkeys(train, "train"), "000003.jpg": "test", "000008.jpg": "test"}
    assert data.problems == () and data.fingerprint != CELEBA.open(make()).fingerprint


def test_an_image_of_both_lists_of_mafl_is_held_out(make):
    root = make()
    (root / "MAFL/training.txt").write_text("000001.jpg\n000003.jpg")
    data = MAFL.open(root)
    assert splits(data) == {"train": 1, "test": 2}
    assert data.problems == ("images listed more than once: 000003.jpg",)


@pytest.mark.parametrize("layout", [CELEBA, MAFL])
def test_lists_of_mafl_that_name_images_without_annotation(make, layout):
    root = make()
    (root / "MAFL/testing.txt").write_text("000003.jpg\n200000.jpg\n200001.jpg\n")
    data = layout.open(root)
    told = "images of testing.txt without an annotation: 2, first 200000.jpg"
    assert data.problems == (told,) and splits(data)["test"] == 1


def test_no_split_is_told(make):
    root = make(mafl=False)
    (root / "Eval/list_eval_partition.txt").unlink()
    data = CELEBA.open(root)
    assert splits(data) == {"": 8}
    told = "no split, for want of: MAFL/testing.txt or Eval/list_eval_partition.txt"
    assert data.problems == (told,)


def test_a_partition_with_gaps(make):
    root = make(mafl=False)
    text = "000001.jpg 0\n000002.jpg 7\n000009.jpg 1\n"
    (root / "Eval/list_eval_partition.txt").write_text(text)
    data = CELEBA.open(root)
    assert splits(data) == {"train": 1, "": 7}
    assert data.problems == (
        "images of list_eval_partition.txt without an annotation: 000009.jpg",
        "images that list_eval_partition.txt puts nowhere, now without a split: "
        "7, first 000002.jpg",
    )


def test_absent_images_and_points_of_no_use(make):
    rows = lines(NAMES[:4]) + lines(NAMES[4:5], POINTS.replace("69", "nan"))
    rows += lines(NAMES[5:6], POINTS.replace("106  113", "69 109")) + lines(NAMES[6:])
    root = make(rows=rows)
    (root / "Img/img_align_celeba/000002.jpg").unlink()
    data = CELEBA.open(root)
    assert len(data.samples) == 5
    assert data.problems == (
        "images listed but absent: 000002.jpg",
        "annotations that are not finite: 000005.jpg",
        "annotations whose inter-ocular length is zero: 000006.jpg",
    )


def test_a_truncated_annotation_file(make):
    data = CELEBA.open(make(rows=lines(NAMES)[:-20] + "\n"))
    assert len(data.samples) == 7
    assert data.problems == (
        "lines of list_landmarks_align_celeba.txt that are not a name and 10 numbers: line 10",
        "annotations in list_landmarks_align_celeba.txt: 7, and 8 by its header",
        "images of testing.txt without an annotation: 000008.jpg",
    )


@pytest.mark.parametrize(
    "text", ["", "8\n5_o_Clock_Shadow Arched_Eyebrows\n000001.jpg -1 1\n", "000001.jpg 1 2\n"]
)
def test_another_file_by_that_name(make, text):
    root = make()
    (root / "Anno/list_landmarks_align_celeba.txt").write_text(text)
    with pytest.raises(UserError, match="in its first two lines, expected the number of images"):
        CELEBA.open(root)


def test_mafl_without_its_lists(make):
    with pytest.raises(UserError, match=r"expected .* MAFL/training\.txt and MAFL/testing\.txt"):
        MAFL.open(make(mafl=False))
