"""A folder of results holds those of one run, and never loses what is not ours."""

import pytest
from PIL import Image

from lmk.runtime.boxes import parse_roi
from lmk.runtime.errors import UserError
from lmk.runtime.pipeline import Interrupted, detect
from lmk.runtime.results import make_sinks
from lmk.runtime.sources import open_source


@pytest.fixture
def pictures(tmp_path, blob_image):
    """A folder with a.png, b.jpg and sub/c.png."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        Image.fromarray(blob_image(40, 50, 20, 20)).save(folder / name)
    return folder


def _detect(landmarker, source, folder, overlay=True, force=True, progress=None):
    with open_source(source) as frames:
        sinks, files = make_sinks(frames, folder, landmarker.names, overlay, force)
        detect(frames, landmarker, parse_roi("full"), sinks, 2, progress)
    return files


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_existing_results_ask_for_force(tmp_path, landmarker, pictures):
    _detect(landmarker, pictures, tmp_path / "out", force=False)
    with pytest.raises(UserError, match="--force"):
        _detect(landmarker, pictures, tmp_path / "out", force=False)


def test_stale_pictures_go_and_foreign_files_stay(tmp_path, landmarker, pictures):
    out = tmp_path / "out"
    _detect(landmarker, pictures, out)
    assert _files(out / "overlay") == ["a.png", "b.jpg.png", "sub", "sub/c.png"]
    Image.new("RGB", (8, 8)).save(out / "overlay" / "mine.png")
    (out / "notes.txt").write_text("mine")
    (pictures / "b.jpg").unlink()
    (pictures / "sub" / "c.png").unlink()
    _detect(landmarker, pictures, out)
    assert _files(out / "overlay") == ["a.png", "mine.png"]
    assert _files(out)[0] == "landmarks.csv" and (out / "notes.txt").read_text() == "mine"


def test_results_of_another_kind_go(tmp_path, landmarker, pictures, blob_video):
    out = tmp_path / "out"
    _detect(landmarker, pictures, out)
    _detect(landmarker, blob_video[0], out)
    assert _files(out) == ["landmarks.csv", "overlay.mp4"]
    _detect(landmarker, pictures, out)
    assert _files(out)[:3] == ["landmarks.csv", "overlay", "overlay/a.png"]
    assert not (out / "overlay.mp4").exists()
    files = _detect(landmarker, pictures, out, overlay=False)
    assert _files(out) == ["landmarks.csv"] and files == [out / "landmarks.csv"]


def test_folder_without_results_is_not_cleared(tmp_path, landmarker, pictures):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "overlay.mp4").write_bytes(b"someone's")
    _detect(landmarker, pictures, tmp_path / "out", overlay=False)
    assert (tmp_path / "out" / "overlay.mp4").read_bytes() == b"someone's"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("video", [True, False])
def test_forced_run_that_does_not_end_changes_nothing(
    tmp_path, landmarker, pictures, blob_video, error, video
):
    out = tmp_path / "out"
    _detect(landmarker, pictures, out)
    before = _contents(out)

    def stop(num_done):
        raise error

    with pytest.raises(error) as caught:
        _detect(landmarker, blob_video[0] if video else pictures, out, progress=stop)
    assert _contents(out) == before
    assert not isinstance(caught.value, Interrupted) or "untouched" in str(caught.value)
