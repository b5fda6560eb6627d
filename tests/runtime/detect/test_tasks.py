"""Many sources in one run: each has its results, none loses a neighbour."""

import csv
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import lmk
from lmk.runtime.detect import tasks
from lmk.runtime.detect.tasks import Wanted, folders_of, grouped, is_finished, opener
from lmk.runtime.errors import UserError
from lmk.runtime.find import find_in_film
from lmk.runtime.pipeline import feed
from lmk.runtime.pipeline.run import detect_all, detect_task
from lmk.runtime.pipeline.summary import Interrupted, total
from lmk.runtime.regions import Finding, PatchRegion, RegionMaker, Tracker, Where
from lmk.runtime.sources import open_source

CSV = Wanted(formats=("csv",))


pytestmark = pytest.mark.usefixtures("started")  # no thread stays


def _tasks(specs, folders, landmarker, wanted):
    regions = RegionMaker(wanted.where, landmarker)
    return [
        (tasks.name_of(spec), opener(spec, folder, landmarker, wanted, regions))
        for spec, folder in zip(specs, folders, strict=True)
    ]


@pytest.fixture
def clips(tmp_path, blob_image, write_video):
    """Six videos of different length, the third of which is damaged."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(6):
        pictures = [blob_image(48, 64, 20 + index, 24) for index in range(3 + 2 * number)]
        write_video(folder / f"clip{number}.mp4", pictures)
    (folder / "clip2.mp4").write_bytes(b"not a video" * 99)
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 4])
def test_one_bad_file_does_not_stop_the_rest(tmp_path, clips, landmarker, streams, batch):
    alone = folders_of(clips, tmp_path / "alone")
    for spec, folder in zip(clips, alone, strict=True):
        if "clip2" not in spec:
            _, open_task = _tasks([spec], [folder], landmarker, CSV)[0]
            detect_task(open_task(), landmarker, batch)
    together = folders_of(clips, tmp_path / "together")
    seen = []
    outcomes = list(
        detect_all(
            _tasks(clips, together, landmarker, CSV), landmarker, batch, streams, seen.append
        )
    )
    by_name = {outcome.name: outcome for outcome in outcomes}
    assert sorted(by_name) == [f"clip{number}" for number in range(6)]
    assert isinstance(by_name["clip2"].error, UserError) and by_name["clip2"].summary is None
    assert not together[2].exists()
    for number in (0, 1, 3, 4, 5):
        assert by_name[f"clip{number}"].summary.frames == 3 + 2 * number
        rows = (together[number] / "landmarks.csv").read_bytes()
        assert rows == (alone[number] / "landmarks.csv").read_bytes()
    assert seen[-1] == 3 + 5 + 9 + 11 + 13
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == [
        f"clip{number}" for number in (0, 1, 3, 4, 5)
    ]


def test_an_error_of_one_region_is_that_source_s(tmp_path, clips, landmarker, write_video):
    write_video(tmp_path / "small.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3)
    specs = [clips[0], str(tmp_path / "small.mp4"), clips[1]]
    wanted = Wanted(Where("0,0,40,40"), ("csv",))
    made = _tasks(specs, folders_of(specs, tmp_path / "o"), landmarker, wanted)
    outcomes = list(detect_all(made, landmarker, 4, 2))
    failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    assert list(failed) == ["small"] and "within the frame of 16×16" in str(failed["small"])


def test_ctrl_c_among_many_keeps_the_finished_and_what_was_found(
    tmp_path, clips, landmarker, press_at
):
    specs = [clip for clip in clips if "clip2" not in clip]
    folders = folders_of(specs, tmp_path / "o")
    with pytest.raises(Interrupted, match="interrupted after"):
        list(detect_all(_tasks(specs, folders, landmarker, CSV), landmarker, 2, 1, press_at(12)))
    found = [len(_rows(folder)) for folder in folders if folder.exists()]
    assert found[:2] == [3, 5] and len(found) == 3 and 0 < found[2] < 9
    done = [
        is_finished(*each, CSV, landmarker.contract) for each in zip(specs, folders, strict=True)
    ]
    assert done == [True, True, False, False, False]


def _rows(folder):
    with (folder / "landmarks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_summaries_add_up(tmp_path, clips, landmarker):
    specs = [clip for clip in clips if "clip2" not in clip]
    made = _tasks(specs, folders_of(specs, tmp_path / "o"), landmarker, CSV)
    summaries = [outcome.summary for outcome in detect_all(made, landmarker, 4, 3)]
    whole = total(summaries, 2.0)
    assert whole.frames == whole.objects == 41 and whole.frames_per_second == 20.5
    assert whole.busy_seconds["run"] == pytest.approx(
        sum(each.busy_seconds["run"] for each in summaries)
    )
    assert total([], 1.0).frames == 0


def test_traces_of_an_interrupted_run_are_not_thrown_away_unasked(
    tmp_path, blob_video, landmarker, monkeypatch, press_at
):
    monkeypatch.setattr(feed, "CHUNK", 5)

    def task(**changes):
        wanted = Wanted(formats=("csv",), **changes)
        [(_, open_task)] = _tasks([str(blob_video[0])], [tmp_path / "o"], landmarker, wanted)
        return open_task()

    with pytest.raises(Interrupted, match="--resume goes on"):
        detect_task(task(), landmarker, 4, press_at(12))
    (tmp_path / "o" / "landmarks.csv").unlink()
    with pytest.raises(UserError, match="interrupted run.*--resume goes on with it, --force"):
        task()
    with pytest.raises(UserError, match="--smooth: got .*expected None as in the run before"):
        task(resume=True, smooth=(1.0, 0.0))
    summary = detect_task(task(resume=True), landmarker)
    assert (summary.frames, summary.resumed) == (24, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert is_finished(str(blob_video[0]), tmp_path / "o", CSV, landmarker.contract)
    assert detect_task(task(force=True), landmarker).resumed == 0


def test_a_changed_source_is_not_gone_on_with(
    tmp_path, blob_image, landmarker, monkeypatch, press_at
):
    monkeypatch.setattr(feed, "CHUNK", 2)
    images = tmp_path / "in"
    images.mkdir()
    for number in range(6):
        Image.fromarray(blob_image(20, 20, 9, 9)).save(images / f"{number}.png")

    def task(resume):
        wanted = Wanted(formats=("csv", "overlay"), batch=1, resume=resume)
        [(_, open_task)] = _tasks([str(images)], [tmp_path / "o"], landmarker, wanted)
        return open_task()

    with pytest.raises(Interrupted):
        detect_task(task(False), landmarker, 1, press_at(5))
    Image.fromarray(blob_image(20, 20, 9, 9)).save(images / "9.png")
    with pytest.raises(UserError, match="its files: 9.png was not there before, exp"):
        task(True)


@pytest.mark.parametrize("streams", [1, 3])
def test_images_resume_with_their_pictures(
    tmp_path, blob_image, landmarker, monkeypatch, press_at, streams
):
    monkeypatch.setattr(feed, "CHUNK", 4)
    images = tmp_path / "in"
    images.mkdir()
    for number in range(10):
        Image.fromarray(blob_image(20, 30, 5 + number, 9)).save(images / f"{number}.png")
    (images / "1.png").write_bytes(b"broken")

    def task(name, resume=False):
        wanted = Wanted(formats=("csv", "overlay", "jsonl"), batch=1, resume=resume)
        [(_, open_task)] = _tasks([str(images)], [tmp_path / name], landmarker, wanted)
        return open_task()

    detect_task(task("whole"), landmarker, 1)
    with pytest.raises(Interrupted):
        detect_task(task("o"), landmarker, 1, press_at(7))
    summary = detect_task(task("o", True), landmarker, 1)
    assert (summary.frames, summary.resumed) == (9, 3)  # 0, 2, 3
    assert [line for line in summary.skipped if "1.png" in line] == summary.skipped != []
    whole, resumed = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in _files(tmp_path / name)}
        for name in ("whole", "o")
    )
    assert whole == resumed and len(whole) == 12


def _files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_image_files_on_the_command_line_are_one_source(tmp_path, blob_image, landmarker):
    paths = []
    for number in range(3):
        path = tmp_path / "in" / f"{number}" / "x.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(blob_image(20, 20, 9, 9)).save(path)
        paths.append(str(path))
    assert grouped(["a.mp4", *paths, "b.mp4"]) == ["a.mp4", tuple(paths), "b.mp4"]
    assert grouped(["a.mp4", paths[0]]) == ["a.mp4", paths[0]]
    [spec] = grouped(paths)
    [folder] = folders_of([spec], None)
    assert folder.name == "in-landmarks"
    [(name, open_task)] = _tasks([spec], [tmp_path / "o"], landmarker, CSV)
    assert (name, detect_task(open_task(), landmarker).frames) == ("in", 3)
    assert [row["source"] for row in _rows(tmp_path / "o")] == ["0/x.png", "1/x.png", "2/x.png"]


def test_stacks_stay_by_themselves(tmp_path):
    first, *rest = (Image.new("RGB", (8, 6), (60 * n, 0, 0)) for n in range(3))
    for name in ("a.tif", "b.gif"):
        first.save(tmp_path / name, save_all=True, append_images=rest)
    specs = [str(tmp_path / name) for name in ("a.tif", "b.gif")]
    assert grouped(specs) == specs


def test_folders_are_told_apart(tmp_path):
    specs = ["a/x.mp4", "b/x.mp4", "rtsp://host:8554/cam"]
    assert folders_of(specs[:1], tmp_path) == [tmp_path]
    several = folders_of(specs, tmp_path)
    assert several[:2] == [tmp_path / "x", tmp_path / "x-2"] and len(set(several)) == 3
    assert all(folder.parent == tmp_path for folder in several)


def test_no_password_in_messages():
    assert "secret" not in tasks.label("rtsp://me:secret@camera.local/stream")
    assert tasks.label("a/b.mp4") == "a/b.mp4" and tasks.label(("a.png", "b.png")) == "2 images"


@pytest.mark.parametrize(
    ("where", "complaint"),
    [
        (Where("center", start="1,2,3,4"), "start: .*--roi track or box only"),
        (Where("box"), "roi: got box without its place.*--start"),
        (Where("motion", detector="d.onnx"), "roi: got motion and a detector"),
        (Where("nowhere"), "roi: got 'nowhere'"),
        (Where("track", start="nowhere"), "roi: got 'nowhere'"),
        (Where(objects=3), "objects: got 3"),
        (Where(detector_class="cat"), "without a --detector"),
        (Where("center", detector="d.onnx"), "roi: got center and a detector"),
        (Where(detector="no.onnx"), "no.onnx"),
    ],
)
def test_words_that_do_not_go_together(landmarker, where, complaint):
    with pytest.raises(UserError, match=complaint):
        RegionMaker(where, landmarker)


def _detected(film, folder, model, wanted):
    """The rows of `film`, by a model."""
    with lmk.load(model, threads=1) as landmarker:
        [(_, open_task)] = _tasks([str(film)], [folder], landmarker, wanted)
        detect_task(open_task(), landmarker, 4)
    return _rows(folder)


def test_a_film_is_looked_at_as_those_that_were_learnt_from(
    tmp_path, make_model, write_video, drawn
):
    frames, _ = drawn.one(60)
    film = write_video(tmp_path / "film.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    find_in_film(film, tmp_path / "boxes.csv", tmp_path / "found.png")
    given = replace(CSV, where=Where(str(tmp_path / "boxes.csv")))
    expected = _detected(film, tmp_path / "given", make_model(), given)
    motion = make_model(finding=Finding("motion").to_json())
    found = _detected(film, tmp_path / "found", motion, CSV)
    assert len(found) == len(expected) == 60
    for row, other in zip(found, expected, strict=True):  # boxes.csv has two digits
        for name in ("box_x", "box_y", "box_w", "box_h", "red_x", "blue_y"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=0.02)
    wider = make_model(finding=Finding("motion", margin=2 * Finding().margin).to_json())
    widths = [float(row["box_w"]) for row in _detected(film, tmp_path / "wide", wider, CSV)]
    assert widths == pytest.approx([2 * float(row["box_w"]) for row in found], abs=0.02)
    whole = _detected(film, tmp_path / "whole", motion, replace(CSV, where=Where("full")))
    assert {row["box_w"] for row in whole} == {"240"}


def test_a_film_goes_on_by_motion_where_it_was(tmp_path, make_model, write_video, drawn):
    frames, _ = drawn.one(40)
    film = write_video(tmp_path / "film.mkv", frames * 15, codec="ffv1", pix_fmt="bgr0")
    model = make_model(finding=Finding("motion").to_json())
    whole = _detected(film, tmp_path / "whole", model, CSV)

    def stop(done):
        if done >= 540:  # past the first place where it can go on
            raise KeyboardInterrupt

    with lmk.load(model, threads=1) as landmarker:
        [(_, open_task)] = _tasks([str(film)], [tmp_path / "parts"], landmarker, CSV)
        with pytest.raises(Interrupted):
            detect_task(open_task(), landmarker, 4, stop)
    assert _detected(film, tmp_path / "parts", model, replace(CSV, resume=True)) == whole


def test_what_cannot_be_found_as_it_was_learnt_says_what_to_give(
    tmp_path, make_model, landmarker, blob_video, blob_image, write_video, drawn, caplog
):
    detector = make_model(finding=Finding("detector", detector="yolo.onnx").to_json())
    with (
        lmk.load(detector, threads=1) as loaded,
        pytest.raises(UserError, match="boxes of the detector 'yolo.onnx'.*--detector"),
    ):
        RegionMaker(Where(), loaded)
    motion = make_model(finding=Finding("motion").to_json())
    still = [drawn.frame(drawn.floor(), [], seed=n) for n in range(20)]
    film = write_video(tmp_path / "still.mkv", still, codec="ffv1", pix_fmt="bgr0")
    with pytest.raises(UserError, match="still.mkv: got nothing that moves.*--roi boxes.csv"):
        _detected(film, tmp_path / "still", motion, CSV)
    Image.fromarray(blob_image(48, 64, 30, 24)).save(tmp_path / "a.png")
    [row] = _detected(tmp_path / "a.png", tmp_path / "image", motion, CSV)
    assert row["box_w"] == "64" and "a.png: pictures are looked at as wholes" in caplog.text
    with pytest.raises(UserError, match="got no film in a file.*--roi track"):
        _detected(tmp_path / "a.png", tmp_path / "b", motion, replace(CSV, where=Where("motion")))
    box = make_model(finding=Finding("box").to_json())
    with lmk.load(box, threads=1) as loaded, open_source(film) as source:
        assert isinstance(RegionMaker(Where(), loaded)(source), Tracker)
        assert isinstance(RegionMaker(Where("box", "1,1,9,9"), loaded)(source), PatchRegion)


def test_live_drops_what_comes_too_fast_and_says_how_many(tmp_path, blob_video, landmarker):
    def slow(done):
        threading.Event().wait(0.12)  # three frames of 25 a second

    [(_, open_task)] = _tasks([str(blob_video[0])], [tmp_path / "o"], landmarker, CSV)
    summary = detect_task(open_task(), landmarker, 4, slow, live=True)
    rows = _rows(tmp_path / "o")
    assert len(rows) == summary.frames and summary.frames + summary.dropped == 24
    assert summary.dropped > 5 and rows[-1]["frame"] == "23"
    assert json.dumps(summary.busy_seconds)
