"""What the user calls the data: a folder, a name in LMK_DATA, or builtin:NAME."""

import json

import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets import find
from lmk.train.datasets.find import (
    LAYOUTS,
    category_name,
    first_pose_set,
    found,
    layout_of,
    open_dataset,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An LMK_DATA with an unlabelled and two annotated sets, and another current folder."""
    data = tmp_path / "data"
    for name in ("cats", "eyes", "people", ".hidden"):
        (data / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(data / name / "a.png")
    (data / "eyes" / "annotations.csv").write_text("file,l_eye_x,l_eye_y\na.png,1,2\n")
    points = "l_hip_x,l_hip_y,r_shoulder_x,r_shoulder_y"
    (data / "people" / "annotations.csv").write_text(f"file,{points}\na.png,1,2,3,4\n")
    (data / "notes.txt").write_text("no set")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LMK_DATA", str(data))
    return data


def test_sets_of_lmk_data(home):
    assert found() == {name: home / name for name in ("cats", "eyes", "people")}
    assert layout_of(home / "cats").name == "folder" and layout_of(home / "eyes").name == "csv"


def test_by_name_and_by_path(home):
    assert open_dataset("eyes").landmark_names == ("l_eye",)
    assert open_dataset("cats").landmark_names == ()
    assert open_dataset(str(home / "people")).landmark_names == ("l_hip", "r_shoulder")


def test_what_no_layout_reads_is_told(home):
    for name in ("eyes", "cats"):
        (home / name / "deep").mkdir()
        (home / name / "deep" / "b.psd").write_bytes(b"8BPS")
        (home / name / "notes.txt").touch()
        (problem,) = open_dataset(name).problems
        assert problem == f"not read: 1 .psd, first {home / name / 'deep' / 'b.psd'}"


def test_a_layout_that_is_asked_for(home):
    assert open_dataset("eyes", "folder").landmark_names == ()
    with pytest.raises(UserError) as caught:
        open_dataset("cats", "csv")
    message = str(caught.value)
    assert message.startswith(f"{home / 'cats'}: got a.png, expected annotations.csv (file, NAME_x")
    assert "(layout csv); check the folder and --layout" in message


def test_a_folder_here_wins_over_a_name(home, tmp_path):
    (tmp_path / "here" / "cats").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "here" / "cats" / "other.png")
    assert [sample.name for sample in open_dataset("cats").samples] == ["other.png"]


def test_builtin(home):
    data = open_dataset("builtin:puppet")
    assert data.name == "builtin:puppet" and len(data.samples) == find.BUILTIN_COUNT
    with pytest.raises(UserError, match="expected one of puppet, butterfly"):
        open_dataset("builtin:cats")
    with pytest.raises(UserError, match="--layout lsp: got builtin:puppet, expected a folder"):
        open_dataset("builtin:puppet", "lsp")


def test_unknown_names_list_what_exists(home):
    with pytest.raises(UserError, match="--data dogs: no such folder") as caught:
        open_dataset("dogs")
    message = str(caught.value)
    for word in ("cats", "eyes", "people", "builtin:puppet", "builtin:butterfly", str(home)):
        assert word in message
    assert ".hidden" not in message


def test_homes_without_lmk_data(home, tmp_path, monkeypatch):
    monkeypatch.delenv("LMK_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    assert found() == {}
    for folder in ("user/lmk/mine/deep", "user/lmk/both", "here/data/both"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "a.png")
    (tmp_path / "here" / "data" / "empty").mkdir()
    assert {name: path.resolve() for name, path in found().items()} == {
        "mine": tmp_path / "user" / "lmk" / "mine",
        "both": tmp_path / "here" / "data" / "both",
    }


def test_people_come_first(home):
    assert first_pose_set() == "people"
    (home / "people" / "annotations.csv").unlink()
    assert first_pose_set() == "eyes"
    (home / "eyes" / "annotations.csv").unlink()
    with pytest.raises(UserError, match="no annotated data set in .*--data builtin:puppet"):
        first_pose_set()


def test_people_of_any_layout_come_first(home):
    """Its landmarks are known by the layout, or by a look into the file."""
    (home / "people" / "annotations.csv").unlink()
    (home / "people" / "joints.mat").write_bytes(b"not read")
    assert first_pose_set() == "people"
    (home / "people" / "joints.mat").unlink()
    names = ["left_hip", "right_shoulder"]
    values = {"images": [], "categories": [{"id": 1, "keypoints": names}]}
    (home / "people" / "keypoints.json").write_text(json.dumps(values))
    assert layout_of(home / "people").name == "coco" and first_pose_set() == "people"


def test_every_layout_says_what_it_looks_for(tmp_path):
    """And none but `folder` claims an empty folder, or one of pictures only."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "images").mkdir()
    for name, layout in LAYOUTS.items():
        assert layout.name == name and layout.looks_for
        assert layout.recognises(tmp_path) == (name == "folder")
        if name != "folder":
            with pytest.raises(UserError, match=r"got a\.png, images, expected .*\(layout"):
                open_dataset(str(tmp_path), name)


def test_category_names(home, tmp_path):
    assert category_name("shoes") == "shoes"
    assert category_name("some/where/shoes/") == "shoes"
    assert category_name("builtin:puppet") == "puppet"
    assert category_name(".") == "here"
