"""LS3D-W: Torch7's format, read strictly, and the folder."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.ls3d import LAYOUT, read_t7

GRID = np.stack(np.meshgrid(np.arange(17.0), np.arange(4.0)), 2).reshape(68, 2) * 10 + 100.25


def text(value):
    return struct.pack("<i", len(value)) + value


def head(name, number=1, version=b"V 1"):
    return struct.pack("<ii", 4, number) + text(version) + text(name)


def tensor(values, kind=b"Float", sizes=None, steps=None, offset=1, count=None):
    """What torch.save writes for a matrix, as read off a dump of one."""
    storage = np.asarray(values, "<f4" if kind == b"Float" else "<f8")
    sizes = sizes or storage.shape
    steps = steps or (storage.shape[1], 1)
    head_of_tensor = head(b"torch." + kind + b"Tensor") + struct.pack("<i", len(sizes))
    view = struct.pack(f"<{2 * len(sizes) + 1}q", *sizes, *steps, offset)
    count = storage.size if count is None else count
    return (
        head_of_tensor
        + view
        + head(b"torch." + kind + b"Storage", 2)
        + struct.pack("<q", count)
        + storage.tobytes()
    )


@pytest.fixture
def write(tmp_path):
    def file(data):
        (tmp_path / "1.t7").write_bytes(data)
        return tmp_path / "1.t7"

    return file


def test_bytes_of_a_matrix():
    """The beginning of a 2x3 matrix as a hex dump of a file of Torch7 shows it."""
    dump = (
        "04000000 01000000 03000000 562031 11000000 746f7263682e466c6f617454656e736f72"
        "02000000 0200000000000000 0300000000000000 0300000000000000 0100000000000000"
        "0100000000000000 04000000 02000000 03000000 562031"
    )
    assert tensor(np.zeros((2, 3))).startswith(bytes.fromhex(dump))


@pytest.mark.parametrize("kind", [b"Float", b"Double"])
def test_matrices(write, kind):
    found = read_t7(write(tensor(GRID, kind)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, GRID.astype(np.float32))


def test_a_transposed_matrix(write):
    found = read_t7(write(tensor(GRID.T, sizes=(68, 2), steps=(1, 68))))
    np.testing.assert_array_equal(found, GRID.astype(np.float32))


@given(data=st.data())
def test_any_view_is_what_numpy_makes_of_it(tmp_path_factory, data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    rows, columns, steps = draw(1, 5), draw(1, 4), (draw(0, 6), draw(0, 6))
    offset, spare = draw(1, 4), draw(0, 3)
    count = offset + (rows - 1) * steps[0] + (columns - 1) * steps[1] + spare
    storage = np.arange(count, dtype=np.float32)
    path = tmp_path_factory.mktemp("t7") / "view.t7"
    path.write_bytes(tensor(storage, sizes=(rows, columns), steps=steps, offset=offset))
    strides = [4 * step for step in steps]
    view = np.lib.stride_tricks.as_strided(storage[offset - 1 :], (rows, columns), strides)
    np.testing.assert_array_equal(read_t7(path), view)


WHOLE = tensor(GRID)
HUGE = 2**62
# fmt: off
BROKEN = [
    (b"", "got 0 bytes, where 4 are promised"),
    (WHOLE[:60], "got 60 bytes, where"),
    (WHOLE[:-1], "bytes, where"),
    (WHOLE + b"\0", "got 1 bytes after the tensor"),
    (struct.pack("<id", 1, 3.5), "got a number instead of a tensor"),
    (struct.pack("<i", 2) + text(b"68 points"), "got a string instead of a tensor"),
    (struct.pack("<iii", 3, 1, 0), "got a table instead of a tensor"),
    (struct.pack("<ii", 5, 1), "got a boolean instead of a tensor"),
    (struct.pack("<i", 0), "got nil instead of a tensor"),
    (struct.pack("<i", 8) + bytes(40), "got a function instead of a tensor"),
    (struct.pack("<i", 99), "got type 99 instead of a tensor"),
    (b"4\n1\n3\nV 1\n", "got type 170986036 instead of a tensor"),  # written as text
    (head(b"torch.IntTensor"), "got an object of class 'torch.IntTensor'"),
    (head(b"nn.Sequential"), "got an object of class 'nn.Sequential'"),
    (head(b"torch.FloatTensor", version=b"V 2"), "got version 'V 2'"),
    (head(b"a\n\xff"), r"got an object of class 'a\\n"),
    (struct.pack("<iii", 4, 1, 2**31 - 1), "got a name of 2,147,483,647 letters"),
    (struct.pack("<iii", 4, 1, -5), "bytes, where 7 are promised"),
    (tensor(GRID, sizes=(4, 17, 2), steps=(34, 2, 1)), "got a tensor of 3 axes"),
    (tensor(GRID, sizes=(69, 2)), "got a tensor of 69×2 in a storage of 136 numbers"),
    (tensor(GRID, sizes=(HUGE, HUGE)), f"got a tensor of {HUGE}×{HUGE} in a storage"),
    (tensor(GRID, sizes=(HUGE, 2), steps=(0, 0)), f"got a tensor of {HUGE}×2"),
    (tensor(GRID, sizes=(-1, 2)), "got a tensor of -1×2"),
    (tensor(GRID, sizes=(0, 2)), "got a tensor of 0×2"),
    (tensor(GRID, steps=(-2, 1)), "got a tensor of 68×2 in a storage"),
    (tensor(GRID, offset=0), "got a tensor of 68×2 in a storage"),
    (tensor(GRID, offset=2), "got a tensor of 68×2 in a storage"),
    (tensor(GRID, count=HUGE), "bytes, where"),
    (tensor(GRID, count=-1), "bytes, where"),
    (WHOLE.replace(b"FloatStorage", b"DoublStorage"), "class 'torch.DoublStorage'"),
    (WHOLE.replace(text(b"torch.FloatStorage"), text(b"torch.DoubleStorage")), "another kind"),
    (bytes(70000), "got 70,000 bytes, which is too large for 68 points"),
]
# fmt: on


@pytest.mark.parametrize(("data", "complaint"), BROKEN, ids=[each[1][:40] for each in BROKEN])
def test_what_else_a_file_may_hold(write, data, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        read_t7(write(data))
    message = str(caught.value)
    assert "1.t7: got" in message and "expected a Torch7 matrix of numbers; get" in message


@given(cut=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_no_byte_does_more_than_be_refused(tmp_path_factory, cut, value):
    path = tmp_path_factory.mktemp("t7") / "spoilt.t7"
    path.write_bytes(WHOLE[:cut] + bytes([value]) + WHOLE[cut + 1 :])
    with contextlib.suppress(UserError):
        assert read_t7(path).ndim == 2


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "LS3D-W-balanced-20-03-2017" / "new_dataset"
    folder.mkdir(parents=True)
    for number in (1, 2, 10):
        Image.new("RGB", (60, 50), (90, 60, 50)).save(folder / f"{number}.jpg")
        (folder / f"{number}.t7").write_bytes(WHOLE)
    return folder.parent


def test_the_folder(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "new_dataset").mkdir()  # that many a folder may be called
    assert not LAYOUT.recognises(other)
    for place in (root, root.parent):  # the archive's folder, or what it was unpacked in
        data = LAYOUT.open(place)
        assert LAYOUT.recognises(place) and data.name == place.name and data.problems == ()
        assert sorted(sample.name for sample in data.samples) == ["1.jpg", "10.jpg", "2.jpg"]
    assert {sample.split for sample in data.samples} == {"test"}
    np.testing.assert_array_equal(data.samples[0].points, GRID.astype(np.float32))
    assert data.samples[0].read().shape == (50, 60, 3)
    assert data.landmark_names == LAYOUT.names(root) and len(data.landmark_names) == 68
    assert data.scheme.normaliser.pair == (36, 45)


def test_what_is_missing_or_broken(root):
    folder = root / "new_dataset"
    (folder / "1.t7").unlink()
    (folder / "10.t7").write_bytes(WHOLE[:99])
    for number, points in (("3", GRID[:60]), ("4", GRID * np.nan), ("5", GRID * 0)):
        (folder / f"{number}.t7").write_bytes(tensor(points))
        (folder / f"{number}.jpg").write_bytes((folder / "2.jpg").read_bytes())
    data = LAYOUT.open(root)
    assert [sample.name for sample in data.samples] == ["2.jpg"]
    told = "\n".join(data.problems)
    assert len(data.problems) == 4 and "images without points: 1.jpg" in told
    assert "points that cannot be read: 2, first " in told and "10.t7: got 99 bytes" in told
    assert "annotations that are not finite: 4.jpg" in told
    assert "annotations whose inter-ocular length is zero: 5.jpg" in told
