"""Lists and folders: what is taken, what is left out and told, and when the fingerprint changes."""

import os

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts import cats, ls3d, w300lp, zappos
from lmk.train.datasets.layouts.aflw import AFLW, MTFL
from lmk.train.datasets.layouts.celeba import CELEBA, MAFL
from lmk.train.datasets.layouts.listing import Listing, edges, first_of, read_json
from lmk.train.datasets.sample import mismatch, scheme_of

SCHEME = scheme_of(("l_eye", "r_eye"))
EYES = [[1.0, 2.0], [4.0, 6.0]]


@pytest.fixture
def root(tmp_path):
    for name in ("a.jpg", "b.JPG", "sub/c.png", ".hidden.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (200, 10, 10)).save(path, "JPEG")
    return tmp_path


def test_scanning(root):
    (root / "gone.jpg").symlink_to(root / "nowhere")
    listing = Listing("x", root)
    assert listing.scan() == ["a.jpg", "b.JPG"]
    assert listing.scan(deep=True) == ["a.jpg", "b.JPG", "sub/c.png"]
    assert listing.scan("sub") == ["sub/c.png"] and listing.scan("absent") == []
    assert listing.scan(suffixes={".txt"}) == ["notes.txt"]
    assert set(listing.files) == {"a.jpg", "b.JPG", "sub/c.png", "notes.txt"}


def test_what_is_whole_is_taken_and_the_rest_told(root):
    nan = float("nan")
    listing = Listing("x", root, SCHEME)
    listing.scan(deep=True)
    names = ["a.jpg", "a.jpg", "no.jpg", "nor.jpg", "b.JPG", "sub/c.png"]
    same, half = [[3, 3], [3, 3]], [[nan, 2], [4, 6]]
    listing.take(names, np.array([EYES, EYES, EYES, EYES, same, half]), "train", (0, 0, 4, 4))
    data = listing.dataset("faces")
    (sample,) = data.samples
    assert (data.name, data.scheme, data.notes) == ("faces", SCHEME, ())
    assert (sample.name, sample.split, sample.box) == ("a.jpg", "train", (0, 0, 4, 4))
    assert sample.points.dtype == np.float32 and sample.points.tolist() == EYES
    assert sample.read().shape == (6, 8, 3)
    assert data.problems == (
        "images listed more than once: a.jpg",
        "images listed but absent: 2, first no.jpg",
        "annotations whose inter-ocular length is zero: b.JPG",
        "annotations that are not finite: sub/c.png",
    )


def test_unlabelled_images_are_turned_upright_and_labelled_ones_are_not(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn on
    Image.new("RGB", (8, 6)).save(root / "a.jpg", exif=exif)
    shapes = []
    for scheme, points in ((SCHEME, np.array([EYES])), (scheme_of(()), None)):
        listing = Listing("x", root, scheme)
        listing.take(listing.scan()[:1], points)
        shapes.append(listing.dataset("x").samples[0].read().shape)
    assert shapes == [(6, 8, 3), (8, 6, 3)]


def test_tables(root):
    """Byte-order mark, Windows line ends, names with spaces, trailing spaces, empty lines."""
    table = root / "list.txt"
    table.write_bytes("\ufeffheader\r\na b.jpg 1 -2.5 \r\n\r\n c.jpg  3\t4\r\n".encode())
    listing = Listing("x", root)
    names, numbers = listing.table(table, 2, skip=1)
    assert names == ["a b.jpg", "c.jpg"] and numbers.tolist() == [[1, -2.5], [3, 4]]


def test_broken_lines_of_a_table_are_told(root):
    table = root / "list.txt"
    table.write_text("a.jpg 1 2\nb.jpg 1 two\nc.jpg 1\n3 4\n")
    listing = Listing("x", root)
    assert listing.table(table, 2)[0] == ["a.jpg"]
    listing.take(listing.scan())
    (problem,) = listing.dataset("x").problems
    assert problem == "lines of list.txt that are not a name and 2 numbers: 3, first line 2"


@pytest.mark.parametrize("content", [None, "é".encode("utf-16")])
def test_a_list_that_cannot_be_read(root, content):
    if content:
        (root / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt: cannot be read .* get the file again"):
        Listing("x", root).table(root / "list.txt", 2)


def test_nothing_that_can_be_used(root):
    listing = Listing("faces", root, SCHEME)
    with pytest.raises(UserError, match="images of layout faces; it holds no image"):
        listing.dataset("x")
    listing.take(["no.jpg"], np.array([EYES]))
    with pytest.raises(UserError, match=r"expected .* images listed but absent: no\.jpg"):
        listing.dataset("x")


def test_notes_are_apart_from_problems(root):
    listing = Listing("x", root)
    listing.take(listing.scan())
    listing.note("mirrored copies, not read", "AFW_Flip/")
    data = listing.dataset("x")
    assert data.problems == () and data.notes == ("mirrored copies, not read: AFW_Flip/",)


def test_fingerprint(root):
    """It follows the images, the annotations, and what is read of them."""

    def fingerprint(layout="x"):
        listing = Listing(layout, root)
        listing.use(root / "notes.txt")
        listing.take(listing.scan())
        return listing.dataset("x").fingerprint

    prints = [fingerprint(), fingerprint("y")]
    assert fingerprint() == prints[0]
    os.utime(root / "a.jpg", ns=(1, 1))
    prints.append(fingerprint())
    (root / "b.JPG").rename(root / "d.jpg")
    prints.append(fingerprint())
    (root / "notes.txt").write_text("other")
    prints.append(fingerprint())
    assert len(set(prints)) == 5


def test_the_first_that_exists(root):
    assert first_of(root, "x", "sub/c.png", "a.jpg") == root / "sub/c.png"
    assert first_of(root, "x") is None


def test_what_a_folder_of_another_layout_holds_is_told(root):
    """A few names of it."""
    (root / "empty").mkdir()
    message = str(mismatch(root, "CAT_00/"))
    assert "got .hidden.jpg, a.jpg, b.JPG, empty, notes.txt, expected CAT_00/; check" in message
    assert "got an empty folder" in str(mismatch(root / "empty", "CAT_00/"))
    assert "got No such file" in str(mismatch(root / "absent", "CAT_00/"))


@pytest.mark.parametrize(
    ("layout", "folders", "expected"),
    [
        (AFLW, "pictures", r"aflw_train_images\.txt, .* and output/"),
        (MTFL, "pictures", r"training\.txt, testing\.txt and AFLW/, "),
        (cats.LAYOUT, "cats", "CAT_00/ to CAT_06/ with NAME.jpg"),
        (CELEBA, "pictures", "Img/img_align_celeba/"),
        (MAFL, "pictures", r"Img/.* MAFL/training\.txt and MAFL/testing\.txt"),
        (ls3d.LAYOUT, "pictures", "new_dataset/ with NUMBER.jpg"),
        (w300lp.LAYOUT, "AFW", r"AFW/, .* landmarks/ with NAME_pts\.mat"),  # without landmarks/
        (zappos.LAYOUT, "Boots, Heels, Sandals, Shoes", "ut-zap50k-images-square/ or"),
    ],
)
def test_a_folder_of_another_layout_is_not_recognised(tmp_path, layout, folders, expected):
    for name in folders.split(", "):
        (tmp_path / name).mkdir()
    assert not layout.recognises(tmp_path)
    with pytest.raises(UserError, match=f"got {folders}, expected {expected}.*; check"):
        layout.open(tmp_path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_with_and_without_byte_order_mark(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(mark + b'{"a":\r\n [1, 2]}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2]}


@pytest.mark.parametrize("content", [b"", b'{"a": [1, 2', b"\xff\xfe{\x00}\x00", b"[" * 100_000])
def test_no_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON \(.*; get it again"):
        read_json(tmp_path / "a.json")


def test_the_ends_of_a_file(tmp_path):
    (tmp_path / "a.json").write_bytes(b"head" + b"." * 500_000 + b"tail")
    found = edges(tmp_path / "a.json")
    assert found.startswith("head") and found.endswith("tail") and len(found) < 200_000
    (tmp_path / "b.json").write_bytes(b"head" + b"." * 80_000 + b"tail")
    assert edges(tmp_path / "b.json").replace("\n", "") == "head" + "." * 80_000 + "tail"
    assert edges(tmp_path / "absent.json") == ""
