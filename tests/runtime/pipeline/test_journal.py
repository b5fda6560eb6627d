"""An interrupted run goes on, and ends as if it had not been interrupted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.tables import CsvSink
from lmk.runtime.pipeline import feed
from lmk.runtime.pipeline.journal import Journal
from lmk.runtime.pipeline.run import Task, detect_task
from lmk.runtime.pipeline.summary import Interrupted
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.regions.region import Region, Target
from lmk.runtime.sources.open import open_source

FULL = parse_roi("full")
ANY_FLOAT = st.floats(width=32)


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(feed, "CHUNK", 5)


@given(
    points=st.lists(st.tuples(ANY_FLOAT, ANY_FLOAT, ANY_FLOAT), max_size=4),
    box=st.tuples(*[st.floats(-1e4, 1e4)] * 4),
    time_s=st.floats(0, 1e6),
)
def test_what_was_found_comes_back_to_the_last_bit(tmp_path_factory, points, box, time_s):
    table = np.array(points, np.float32).reshape(-1, 3)
    detection = Detection(table[:, :2], table[:, 2], box, 7)
    folder = tmp_path_factory.mktemp("journal") / "j"
    journal = Journal(folder, {})
    frame = Frame("a/ü.png", 41, time_s, np.zeros((4, 6, 3), np.uint8))
    journal.add(frame, [detection, detection])
    journal.add(replace(frame, index=42), [])
    journal.commit(42, {"x": 0.1}, ["why"])
    again = Journal(folder, {}, resume=True)
    assert (again.last_index, again.state, again.skipped) == (42, {"x": 0.1}, ["why"])
    [[(read, found), (_, none)]] = again.done()
    assert none == [] and len(found) == 2
    assert (read.source, read.index, read.time_s, read.image.shape) == (
        "a/ü.png",
        41,
        time_s,
        (4, 6, 3),
    )
    np.testing.assert_array_equal(found[1].points, detection.points)
    np.testing.assert_array_equal(found[1].scores, detection.scores)
    assert (found[1].box, found[1].track) == (box, 7)


def _task(path, folder, landmarker, resume, sinks=None):
    journal = Journal(folder / "journal", {"model": "m"}, resume)
    sinks = sinks or _sinks(folder, landmarker)
    return Task(open_source(path), FULL, sinks, None, journal)


def _sinks(folder, landmarker):
    return [CsvSink(folder / "o.csv", landmarker.names)]


@pytest.mark.parametrize("at", [0, 4, 5, 13, 23])
def test_a_run_that_broke_off_ends_like_one_that_did_not(tmp_path, landmarker, blob_video, at):
    class Breaks(CsvSink):
        def write(self, frame, detections):
            if frame.index == at:
                raise RuntimeError("power cut")
            super().write(frame, detections)

    detect_task(_task(blob_video[0], tmp_path / "whole", landmarker, False), landmarker)
    broken = tmp_path / "broken"
    with pytest.raises(RuntimeError, match="power cut"):
        sinks = [Breaks(broken / "o.csv", landmarker.names)]
        detect_task(_task(blob_video[0], broken, landmarker, False, sinks), landmarker)
    assert not (broken / "o.csv").exists()
    summary = detect_task(_task(blob_video[0], broken, landmarker, True), landmarker)
    assert (summary.frames, summary.resumed) == (24, at // 5 * 5)
    assert (broken / "o.csv").read_bytes() == (tmp_path / "whole" / "o.csv").read_bytes()
    assert not (broken / "journal").exists() and not (tmp_path / "whole" / "journal").exists()


class _Walks(Region):
    """Remembers how often it was asked, or told."""

    def __init__(self, closed):
        self.closed, self.count = closed, 0

    def targets(self, frame):
        self.count += not self.closed
        return [Target((self.count, 0, 40, 40), self.count)]

    def update(self, frame, detections):
        self.count += 1
        return detections

    def state(self):
        return self.count

    def restore(self, state):
        self.count = state


@pytest.mark.parametrize("kind", ["table", "open region", "closed region", "overlay"])
def test_ctrl_c_keeps_the_journal_which_is_gone_on_with_byte_for_byte(
    tmp_path, landmarker, blob_video, press_at, kind
):
    def task(name, resume=False):
        made = _task(blob_video[0], tmp_path / name, landmarker, resume)
        if "region" in kind:
            made.region = _Walks(kind == "closed region")
        if kind == "overlay":
            made.sinks = [OverlayVideoSink(tmp_path / name / "o.mp4", work=made.journal.work)]
        return made

    file = "o.mp4" if kind == "overlay" else "o.csv"
    detect_task(task("whole"), landmarker)
    with pytest.raises(Interrupted, match="what was found is kept; --resume goes on"):
        detect_task(task("b"), landmarker, 4, press_at(12))
    partial = (tmp_path / "b" / file).read_bytes()
    detect_task(task("b", True), landmarker)
    whole = (tmp_path / "b" / file).read_bytes()
    assert whole == (tmp_path / "whole" / file).read_bytes() != partial
    assert kind == "overlay" or whole.startswith(partial)


def test_another_model_or_option_is_refused(tmp_path):
    Journal(tmp_path / "j", {"model": "a", "roi": "full"}).commit(4, None, [])
    with pytest.raises(UserError, match="j: roi: got center, expected full as in the run"):
        Journal(tmp_path / "j", {"model": "a", "roi": "center"}, resume=True)
    fresh = Journal(tmp_path / "j", {"model": "b"})
    assert fresh.last_index == -1 and list(fresh.done()) == []


@pytest.mark.parametrize("name", ["identity.json", "journal.json"])
@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "[" * 9999, None])
def test_a_damaged_journal_is_named(tmp_path, name, damage):
    Journal(tmp_path / "j", {"a": 1}).commit(4, None, [])
    file = tmp_path / "j" / name
    changed = file.read_text().replace("4", "5").replace("1", "2")  # still JSON of the right types
    file.write_text(changed if damage is None else damage)
    with pytest.raises(UserError, match="damaged journal.*--force"):
        Journal(tmp_path / "j", {"a": 1}, resume=True)


@pytest.mark.parametrize("damage", ["", '["v", 0, 0.0, [4, 7], []]', "[" * 9999])
def test_a_damaged_chunk_is_named(tmp_path, damage):
    journal = Journal(tmp_path / "j", {})
    journal.add(Frame("v", 0, 0.0, np.zeros((4, 6, 3), np.uint8)), [])
    journal.commit(0, None, [])
    (tmp_path / "j" / "000000.jsonl").write_text(damage)
    with pytest.raises(UserError, match=r"000000.jsonl: damaged .*--force"):
        list(Journal(tmp_path / "j", {}, resume=True).done())


def test_a_chunk_that_was_not_committed_does_not_count(tmp_path):
    journal = Journal(tmp_path / "j", {})
    journal.commit(4, None, [])
    (tmp_path / "j" / "000001.jsonl").write_text(json.dumps("half of it"))
    assert len(list(Journal(tmp_path / "j", {}, resume=True).done())) == 1
