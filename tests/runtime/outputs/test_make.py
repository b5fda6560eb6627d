"""A folder of results holds those of one run, and never loses what is not ours."""

import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.formats import FORMATS, output_files
from lmk.runtime.outputs.make import make_sinks
from lmk.runtime.outputs.painter import Style
from lmk.runtime.pipeline.run import detect
from lmk.runtime.pipeline.summary import Interrupted
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.sources.open import open_source

BOTH = ("csv", "overlay")


@pytest.fixture
def pictures(tmp_path, blob_image):
    """A folder with a.png, b.jpg and sub/c.png."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        Image.fromarray(blob_image(40, 50, 20, 20)).save(folder / name)
    return folder


def _detect(landmarker, source, folder, formats=BOTH, force=True, progress=None):
    with open_source(source) as frames:
        sinks, files = make_sinks(frames, folder, landmarker.names, formats, force)
        detect(frames, landmarker, parse_roi("full"), sinks, 2, progress)
    return files


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("formats", [BOTH, ("jsonl",)])
def test_existing_results_ask_for_force(tmp_path, landmarker, pictures, formats):
    _detect(landmarker, pictures, tmp_path / "out", force=False)
    before = _contents(tmp_path / "out")
    with pytest.raises(UserError, match="landmarks.csv: .*--force|overlay: .*--force"):
        _detect(landmarker, pictures, tmp_path / "out", formats, force=False)
    assert _contents(tmp_path / "out") == before


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
    files = _detect(landmarker, pictures, out, ("jsonl", "coco"))
    assert _files(out) == ["landmarks.coco.json", "landmarks.jsonl"]
    assert sorted(files) == [out / "landmarks.coco.json", out / "landmarks.jsonl"]


def test_folder_without_results_is_not_cleared(tmp_path, landmarker, pictures):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "overlay.mp4").write_bytes(b"someone's")
    _detect(landmarker, pictures, tmp_path / "out", ("csv",))
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


def test_unknown_format_and_landmark_are_refused(tmp_path, pictures):
    with open_source(pictures) as source:
        with pytest.raises(UserError, match="format: got 'xml', expected some of csv, overlay"):
            make_sinks(source, tmp_path / "out", ("a",), ("csv", "xml"), False)
        with pytest.raises(UserError, match="skeleton: got 'b'"):
            make_sinks(
                source, tmp_path / "out", ("a",), BOTH, False, style=Style(0, False, (("a", "b"),))
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "module"), [("parquet", "pyarrow"), ("dlc", "tables"), ("slp", "sleap_io")]
)
def test_missing_package_is_told_before_any_work(tmp_path, pictures, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with (
        open_source(pictures) as source,
        pytest.raises(
            UserError, match=rf"format {name}: .*without {module} .*pip install.*\[{name}\]"
        ),
    ):
        make_sinks(source, tmp_path / "out", ("a",), (name,), False)
    assert not (tmp_path / "out").exists()


def _walk(count=11):
    """Frames of two landmarks on none, one or two objects."""
    rng = np.random.default_rng(0)
    for index in range(count):
        found = [
            Detection(
                rng.uniform(0, 48, (2, 2)).astype(np.float32),
                rng.random(2).astype(np.float32),
                (0.0, 0.5, 48.0, 40.25),
                track,
            )
            for track in range(index % 3)
        ]
        yield Frame("v.mp4", index, index / 25, np.full((48, 64, 3), 9 * index, np.uint8)), found


@pytest.mark.parametrize("stop", [5, 8])
def test_run_that_broke_off_ends_byte_for_byte_in_every_format(tmp_path, blob_video, stop):
    pytest.importorskip("tables")
    pytest.importorskip("sleap_io")
    source = SimpleNamespace(
        colours=None,
        start_s=None,
        pixel_aspect=Fraction(1),
        path=blob_video[0],
        frame_rate=Fraction(25),
        time_base=Fraction(1, 1000),
        size=(48, 64),
    )

    def run(name, replayed=0, stop=None):
        work = tmp_path / f".{name}"
        sinks, files = make_sinks(
            source, tmp_path / name, ("a", "b"), FORMATS, False, work, Style(4)
        )
        for sink in sinks:
            sink.open(source)
            for frame, found in list(_walk())[:stop]:
                (sink.replay if frame.index < replayed else sink.write)(frame, found)
                if frame.index % 4 == 3:
                    sink.checkpoint()
        return sinks, files

    for sink in run("whole")[0]:
        sink.close()
    lost, _ = run("broken", stop=stop)  # killed here
    sinks, files = run("broken", replayed=stop // 4 * 4)
    for sink in sinks:
        sink.close()
    for file in files:
        assert file.read_bytes() == (tmp_path / "whole" / file.name).read_bytes(), file.name
    assert len(files) == len(output_files(tmp_path, FORMATS)) == 8
    for sink in lost:
        sink.abort()
