"""annotations.csv: what is read, and where it says what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.images import UnreadableImage
from lmk.train.datasets.layouts.table import landmark_names, open_csv

NO_PLACES = ("nan", "inf", "-inf")
STAYS = "line 2: got .*expected a path that stays in"
HEADER = "file,width,height,split,l_eye_x,l_eye_y,l_eye_v,nose_x,nose_y\n"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the table and returns its folder."""

    def table(text, encoding="utf-8"):
        (tmp_path / "annotations.csv").write_bytes(text.encode(encoding))
        return tmp_path

    return table


def test_points_visibility_and_empty_cells(write):
    data = open_csv(
        write(
            HEADER
            + "a.png,9,9,train,1.5,2,1,3,4\n"
            + "b.png,9,9,test,1.5,2,0,3,4\n"
            + "c.png,9,9,,,,,3,\n"
            + "sub/d.png,9,9,val,-1,1e1,2,,4\n"
        )
    )
    assert data.landmark_names == ("l_eye", "nose")
    assert [sample.name for sample in data.samples] == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert [sample.split for sample in data.samples] == ["train", "test", "", "val"]
    nan = np.nan
    expected = [
        [[1.5, 2], [3, 4]],
        [[nan, nan], [3, 4]],  # v is 0
        [[nan, nan], [nan, nan]],
        [[-1, 10], [nan, nan]],
    ]
    for sample, points in zip(data.samples, expected, strict=True):
        assert sample.points.dtype == np.float32
        np.testing.assert_array_equal(sample.points, np.array(points, np.float32))


def test_boxes_of_the_object(write):
    data = open_csv(
        write("file,box_x,box_y,box_w,box_h,a_x,a_y\na.png,-1,2.5,30,40,1,2\nb.png,,,,,3,4\n")
    )
    assert data.landmark_names == ("a",)
    assert [sample.box for sample in data.samples] == [(-1, 2.5, 30, 40), None]


def test_a_landmark_may_be_called_box(write):
    data = open_csv(write("file,box_x,box_y\na.png,1,2\n"))
    assert data.landmark_names == ("box",) and data.samples[0].box is None


def test_images_are_read_relative_to_the_table(write):
    root = write(f"file\nsub/a.png\nmissing.png\n{1000 * '9'}\n")
    (root / "sub").mkdir()
    Image.new("RGB", (5, 4), (10, 20, 30)).save(root / "sub" / "a.png")
    data = open_csv(root)
    assert data.landmark_names == () and data.name == root.name
    image = data.samples[0].read()
    assert image.shape == (4, 5, 3) and image[0, 0].tolist() == [10, 20, 30]
    assert data.samples[0].points.shape == (0, 2)
    with pytest.raises(UnreadableImage, match=r"missing\.png"):
        data.samples[1].read()
    with pytest.raises(UnreadableImage, match="9999"):  # longer than a name can be
        data.samples[2].read()


def test_as_a_spreadsheet_saves_it(write):
    """Byte-order mark, CRLF, quotes, and letters that are not ASCII."""
    root = write('\ufefffile,nœud_x,nœud_y\r\n"a,b.png",1,2\r\n')
    data = open_csv(root)
    assert data.landmark_names == ("nœud",)
    assert data.samples[0].name == "a,b.png" and data.samples[0].points.tolist() == [[1, 2]]


def test_names_alone(write):
    assert landmark_names(write(HEADER)) == ("l_eye", "nose")
    assert landmark_names(write("file,split\n")) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image,a_x,a_y\nb.png,1,2\n", "column 'file' is missing, got image, a_x, a_y"),
        ("", "column 'file' is missing, got no header"),
        ("file,a_x\nb.png,1\n", "column 'a_y' is missing"),
        ("file,a_y\nb.png,1\n", "column 'a_x' is missing"),
        (HEADER, "got no rows"),
        ("file,a_x,a_y\na.png,1,2\nb.png,1,two\n", "line 3: got '1', 'two', '1' for a_x, a_y"),
        ("file,a_x,a_y\na.png,1;5,2\n", "line 2: got '1;5', '2'"),
        ("file,a_x,a_y\na.png,1,2\n\n\nb.png,1,x\n", "line 5: got '1', 'x'"),
        ("file,a_x,a_y\na.png,1,2\n,3,4\n", "line 3: the cell of 'file' is empty"),
        ("a_x,a_y,file\n1,2,a.png\n3,4,\n", "line 3: the cell of 'file' is empty"),
        ("file,box_x,box_y,box_w\na.png,1,2,3\n", "column 'box_h' is missing; a box needs"),
        ("file,box_x,box_y,box_w,box_h\na.png,1,2,0,4\n", "line 2: got 1, 2, 0, 4 for box_x"),
        ("file,box_x,box_y,box_w,box_h\na.png,1,2,,4\n", "line 2: got 1, 2, , 4 for box_x"),
        ("file,box_x,box_y,box_w,box_h\na.png,1,2,inf,4\n", "line 2: .* above 0, or empty"),
        ("file,a_x,a_y\nb.png,1,2\na.png\n", "line 3: expected 3 cells"),
        ("file,a_x,a_y\nb.png,1,2\na.png,1,2,3,4\n", "line 3: expected 3 cells"),
        ("file,a_x,a_y,a_x\na.png,1,2,3\n", "column 'a_x' is there twice"),
        *((f"file,a_x,a_y\na.png,{n},2\n", f"line 2: got '{n}', '2'") for n in NO_PLACES),
        ("file,a_x,a_y,a_v\na.png,1,2,yes\n", "line 2: got '1', '2', 'yes'"),
        ("file,a_x,a_y\n../x.png,1,2\n", STAYS),
        ("file,a_x,a_y\nsub/../../x.png,1,2\n", STAYS),
        (f"file,a_x,a_y\n{Path.cwd()}/x.png,1,2\n", STAYS),
    ],
)
def test_what_is_wrong_and_where(write, text, complaint):
    with pytest.raises(UserError, match=rf"annotations\.csv.*{complaint}"):
        open_csv(write(text))


def test_no_table_and_one_of_another_encoding(write, tmp_path):
    with pytest.raises(UserError, match=r"annotations\.csv: got no such file"):
        open_csv(tmp_path)
    with pytest.raises(UserError, match="save it as UTF-8 CSV"):
        open_csv(write("file,œ_x,œ_y\na.png,1,2\n", "utf-16"))


def test_fingerprint_follows_table_and_images(write):
    root = write("file\na.png\n")
    prints = [open_csv(root).fingerprint]
    Image.new("RGB", (5, 4)).save(root / "a.png")
    prints.append(open_csv(root).fingerprint)
    assert open_csv(root).fingerprint == prints[-1]
    Image.new("RGB", (50, 40)).save(root / "a.png")
    prints.append(open_csv(root).fingerprint)
    write("file,split\na.png,test\n")
    prints.append(open_csv(root).fingerprint)
    assert len(set(prints)) == 4


def test_a_path_may_go_up_and_down_within_the_folder(write):
    assert len(open_csv(write("file,a_x,a_y\nsub/../x.png,1,2\n")).samples) == 1


def test_separators_of_windows(write, tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "sub" / "x.png")
    (sample,) = open_csv(write("file,a_x,a_y\nsub\\x.png,1,2\n")).samples
    assert sample.name == "sub/x.png" and sample.read().shape == (3, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_lie_on_the_picture_however_it_is_stored(write, turned, tmp_path, orientation):
    """In the upright picture by default, in the stored one where the size says so."""
    upright, at_upright, stored, at_stored = turned(tmp_path / "a.png", orientation)
    cases = [("", "", at_upright), (*upright, at_upright)]
    if upright != stored:
        cases.append((*stored, at_stored))
    for width, height, (x, y) in cases:
        root = write(f"file,width,height,spot_x,spot_y\na.png,{width},{height},{x},{y}\n")
        (sample,) = open_csv(root).samples
        assert sample.read()[y, x].tolist() == [250, 0, 0]
