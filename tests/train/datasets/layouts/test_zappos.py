"""UT-Zappos50K: both trees, folders that end in a dot, and who is held out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.zappos import CATEGORIES, LAYOUT, split_of

SQUARE, WIDE = "ut-zap50k-images-square", "ut-zap50k-images"


@pytest.fixture
def put(picture):
    return lambda tree, name, size=(136, 136): picture(f"{tree}/{name}", size)


@pytest.fixture
def root(tmp_path, put):
    for index, category in enumerate(CATEGORIES):
        put(SQUARE, f"{category}/Ankle/Timberland/7{index}.3.jpg")
    return tmp_path


def test_a_tree(root, put):
    put(SQUARE, "Boots/Knee High/L.A.M.B./8019.5.jpg")
    put(SQUARE, "Boots/Knee High/Dr. Martens Inc./8020.5.jpg")
    (root / SQUARE / "Boots" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "ut-zap50k-data").mkdir()
    for place in (root, root / SQUARE):
        data = LAYOUT.open(place)
        assert LAYOUT.recognises(place) and data.name == place.name
        names = [sample.name for sample in data.samples]
        assert names[:3] == [
            "Boots/Ankle/Timberland/70.3.jpg",
            "Boots/Knee High/Dr. Martens Inc./8020.5.jpg",
            "Boots/Knee High/L.A.M.B./8019.5.jpg",
        ]
        assert len(names) == 6 and data.problems == () == data.notes
    assert data.landmark_names == () == LAYOUT.names(root)
    for sample in data.samples:
        assert sample.points.shape == (0, 2) and sample.read().shape == (136, 136, 3)


def test_the_wide_tree_alone_and_beside_the_square_one(root, put):
    put(WIDE, "Boots/Ankle/Timberland/70.3.jpg", (136, 102))
    data = LAYOUT.open(root)
    assert len(data.samples) == 4 and data.samples[0].read().shape == (136, 136, 3)
    assert data.notes == ("the same images of another size, not read: ut-zap50k-images/",)
    (root / SQUARE).rename(root / "elsewhere")
    data = LAYOUT.open(root)
    assert len(data.samples) == 1 and data.samples[0].read().shape == (102, 136, 3)
    told = "categories without images: 3, first Sandals/"
    assert data.problems == (told,) and data.notes == ()


def test_about_one_in_a_hundred_is_held_out(root, put):
    held_out = [number for number in range(5000) if split_of(f"{number}.jpg") == "test"]
    assert 30 <= len(held_out) <= 70
    put(SQUARE, f"Shoes/Heels/Apepazza/{held_out[0]}.jpg")
    data = LAYOUT.open(root)
    splits = {sample.name: sample.split for sample in data.samples}
    assert splits.pop(f"Shoes/Heels/Apepazza/{held_out[0]}.jpg") == "test"
    assert splits == {name: split_of(name) for name in splits}


@given(st.text("abc/.", max_size=8), st.from_regex(r"[0-9]{1,7}\.[0-9]{1,6}\.jpg", fullmatch=True))
def test_folders_do_not_matter_for_the_split(folder, name):
    assert split_of(f"{folder}/{name}") == split_of(name) in ("train", "test")


def test_no_images(tmp_path):
    (tmp_path / WIDE).mkdir()
    with pytest.raises(UserError, match="got nothing that can be used.*without images: 4, first"):
        LAYOUT.open(tmp_path)
