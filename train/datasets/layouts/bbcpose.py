"""Layout `bbcpose`: signers in TV broadcasts, 20 videos as folders of frames.

Folders `1` to `20` with `<frame>.jpg`, and `code/bbcpose.mat`: a struct array, one element a video,
with `type` (train: videos 1-10, val: 11-15, test: 16-20), `train_frames` (1×N) and `train_joints`
(2×7×N), found by a machine, and for test videos `test_frames` and `test_joints`, placed by hand;
these are the ones taken there. Elements after the 20th are Extended BBC-Pose and not read.

The literature counts points within 6 px after halving the coordinates (12 px here). Errors are
divided by the box of the 7 points instead, as for any set that declares no length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmk.train.datasets.layouts.listing import Listing
from lmk.train.datasets.layouts.matlab import ONE_BASED, field, read_mat, rows, text
from lmk.train.datasets.sample import Dataset, Layout, scheme_of

FILE_NAME = "bbcpose.mat"
NAMES = ("head", "r_wrist", "l_wrist", "r_elbow", "l_elbow", "r_shoulder", "l_shoulder")
_VIDEOS = 20
_PLACES = ("code", "bbcpose_extbbcpose_code_1.0", ".")


def open_bbcpose(root: Path) -> Dataset:
    """Read code/bbcpose.mat: 7 points (x, y) a frame, pixels of the image.

    Absent folders and frames, and frames with NaN, are left out and told in `problems`. Raises
    UserError if bbcpose.mat cannot be read or nothing is left.
    """
    listing = Listing("bbcpose", root, scheme_of(NAMES))
    table = listing.use(_tables(root)[0])
    for index, video in enumerate(rows(read_mat(table, "bbcpose"))[:_VIDEOS], 1):
        if listing.scan(str(index)):
            _take(listing, str(index), video)
        else:
            listing.leave_out("folders of videos that are absent or empty", str(index))
    return listing.dataset(root.resolve().name)


def _take(listing: Listing, folder: str, video: Any) -> None:
    split = text(video, "type")
    kind = "test" if split == "test" else "train"
    frames = field(video, f"{kind}_frames").ravel()
    joints = field(video, f"{kind}_joints")
    if not frames.size or joints.shape[:2] != (2, 7) or joints.size != 14 * frames.size:
        what = f"videos without 2×7×N numbers in {kind}_joints for the N of {kind}_frames"
        listing.leave_out(what, folder)
        return
    points = joints.reshape(2, 7, -1).transpose(2, 1, 0) - ONE_BASED
    listing.take([f"{folder}/{frame:.0f}.jpg" for frame in frames], points, split)


def _tables(root: Path) -> list[Path]:
    paths = (root / place / FILE_NAME for place in _PLACES)
    return [path for path in paths if path.is_file()]


LAYOUT = Layout(
    "bbcpose",
    f"code/{FILE_NAME} and folders 1 to {_VIDEOS} with <frame>.jpg",
    lambda root: bool(_tables(root)),
    open_bbcpose,
    NAMES,
)
