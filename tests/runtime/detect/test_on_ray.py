"""Sources on a Ray of two CPUs: the files are those of one process, whatever dies meanwhile."""

import contextlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from lmk.runtime.cluster import here
from lmk.runtime.detect import on_ray
from lmk.runtime.detect.on_ray import detect_on_ray
from lmk.runtime.detect.on_ray_part import TRIES, Done, Model, Part, Worker
from lmk.runtime.detect.tasks import Wanted, folders_of, opener
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.parquet import join_parquet
from lmk.runtime.pipeline.run import detect_all
from lmk.runtime.pipeline.smooth import BETA, MIN_CUTOFF_HZ
from lmk.runtime.regions.choose import RegionMaker, Where

ray = pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")
WANTED = Wanted(formats=("parquet",))


@pytest.fixture
def photos(tmp_path, blob_image):
    """Return a function: a number -> a folder of so many images, the third of them broken."""

    def make(count):
        (tmp_path / "photos" / "b").mkdir(parents=True)
        for index in range(count):
            folder = tmp_path / "photos" / ("b" if index > count // 2 else "")
            picture = blob_image(40 + index % 7, 60, 20 + index % 30, 15)
            Image.fromarray(picture).save(folder / f"{index:03d}.png")
        (tmp_path / "photos" / "002.png").write_bytes(b"broken")
        return tmp_path / "photos"

    return make


@pytest.fixture
def model(model_path):
    return Model(str(model_path), threads=1)


def alone(specs, output, landmarker, wanted):
    """The same in this process: folders and outcomes."""
    folders = folders_of(specs, output)
    regions = RegionMaker(wanted.where, landmarker)
    tasks = [
        (spec, opener(spec, folder, landmarker, wanted, regions))
        for spec, folder in zip(specs, folders, strict=True)
    ]
    return list(detect_all(tasks, landmarker, wanted.batch))


def spread(specs, output, model, wanted, report=None, part_images=4):
    pairs = list(zip(specs, folders_of(specs, output), strict=True))
    return list(detect_on_ray(pairs, model, wanted, report, part_images))


def files(folder):
    """All files below it but Parquet, as bytes; Parquet as tables, whose row groups are free."""
    return {
        str(path.relative_to(folder)): parquet.read_table(path)
        if path.suffix == ".parquet"
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_files_are_those_of_one_process(
    cluster, tmp_path, photos, blob_video, landmarker, model
):
    (tmp_path / "broken").mkdir()
    for index in range(5):
        (tmp_path / "broken" / f"{index}.png").write_bytes(b"broken")
    specs = [str(photos(14)), str(blob_video[0]), str(tmp_path / "none.mp4")]
    specs.append(str(tmp_path / "broken"))
    seen = []
    there = spread(specs, tmp_path / "ray", model, WANTED, lambda *done: seen.append(done))
    alike = alone(specs, tmp_path / "one", landmarker, WANTED)
    assert files(tmp_path / "ray") == files(tmp_path / "one")
    schema = parquet.read_schema(tmp_path / "ray" / "photos" / "landmarks.parquet")
    other = parquet.read_schema(tmp_path / "one" / "photos" / "landmarks.parquet")
    assert schema.equals(other, check_metadata=True)
    by_name = {Path(outcome.name).name: outcome for outcome in there}
    for outcome in alike:
        mine = by_name.pop(Path(outcome.name).name)
        assert str(mine.error) == str(outcome.error)
        if outcome.summary:
            assert mine.summary.skipped == outcome.summary.skipped
            assert mine.summary.frames == outcome.summary.frames
            assert mine.summary.mean_score == pytest.approx(outcome.summary.mean_score)
    assert not by_name and seen == [(number, 8) for number in range(1, 9)]


def kill_workers_once(there):
    """As soon as `there` exists; those of this program alone."""

    def kill():
        while not there.exists():
            time.sleep(0.002)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[0].startswith("ray::MapWorker"):
                    process.kill()
                    killed.append(process)

    killed = []
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread, killed


def test_an_interrupted_run_goes_on_and_survives_the_death_of_its_workers(
    cluster, tmp_path, photos, landmarker, model
):
    specs, output = [str(photos(120))], tmp_path / "ray"

    def press(num_done, _):
        if num_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spread(specs, output, model, WANTED, press)
    work = tmp_path / ".ray.partial" / "work"
    num_done = len(list(work.glob("[0-9]*.parquet")))
    assert 2 <= num_done < 30 and not (output / "landmarks.parquet").exists()

    with pytest.raises(UserError, match="got the traces of an interrupted run.*--resume"):
        raise spread(specs, output, model, WANTED)[0].error
    again = replace(WANTED, resume=True)
    other = replace(again, where=Where("center"))
    with pytest.raises(UserError, match="--roi: got center, expected full as in the run before"):
        raise spread(specs, output, model, other)[0].error

    seen = []
    thread, killed = kill_workers_once(work / f"{4 * (num_done + 4):09d}.parquet")
    [outcome] = spread(specs, output, model, again, lambda *one: seen.append(one))
    thread.join()
    assert killed and outcome.error is None and len(seen) <= 30 - num_done
    alone(specs, tmp_path / "one", landmarker, WANTED)
    assert files(output) == files(tmp_path / "one")
    assert not work.parent.exists()


def test_command(lmk, cluster, tmp_path, blob_video, landmarker, model_path, capfd):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    sources = [str(blob_video[0]), str(tmp_path / "bad.mp4")]
    options = ["--on", "ray", "--model", str(model_path), "--output", str(tmp_path / "ray")]
    code, said = lmk("detect", *sources, *options, "--smooth"), capfd.readouterr()
    assert code == 3, said.err
    assert "bad.mp4: failed: " in said.err and "24 frames" in said.err
    alone(sources, tmp_path / "one", landmarker, Wanted(smooth=(MIN_CUTOFF_HZ, BETA)))
    found = files(tmp_path / "ray")
    assert set(found) == {f"blob/{name}" for name in (".lmk.json", "landmarks.csv", "overlay.mp4")}
    assert found == files(tmp_path / "one")

    assert lmk("detect", sources[0], *options, "--live") == 2
    assert "--live: got it with --on ray" in capfd.readouterr().err


def test_bad_input(cluster, tmp_path, photos, model):
    folder = str(photos(3))
    with pytest.raises(UserError, match="-: got standard input, expected what all machines"):
        spread(["-"], tmp_path / "out", model, WANTED)
    with pytest.raises(UserError, match="--device: got cuda, expected a GPU in the Ray cluster"):
        spread([folder], tmp_path / "out", replace(model, device="cuda"), WANTED)
    with pytest.raises(UserError, match="threads: got -1, expected 1 or more"):
        spread([folder], tmp_path / "out", replace(model, threads=-1), WANTED)


def batch_of(part):
    return {"number": np.array([0]), "part": np.array([part.to_json()])}


def test_a_part_is_tried_again_over_what_is_there_but_not_for_ever(tmp_path, blob_video, model):
    worker = Worker(model, WANTED, here())
    part = Part(str(blob_video[0]), str(tmp_path / "out"))
    assert worker.do(part).summary.frames == 24  # and dies before it could say so
    (tmp_path / "out" / ".landmarks.0a1b2c3d.parquet").write_bytes(b"half")
    assert worker(batch_of(part))["number"] == [0]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [".lmk.json", "landmarks.parquet"]
    assert worker.do(part).summary.frames == 24
    assert part.trace.stat().st_size == TRIES
    assert "its process died 3 times" in worker.do(part).error


def test_a_worker_elsewhere(model):
    worker = Worker(model, WANTED, replace(here(), folder="/no/such/folder"))
    done = worker.do(Part("a.mp4", "out"))
    assert "/no/such/folder: not on the machine" in done.refusal


def test_what_no_worker_can_do_ends_the_run(cluster, tmp_path, blob_video, model, monkeypatch):
    refusal = Done.from_json(Done(refusal="CUDAExecutionProvider: did not load").to_json())
    monkeypatch.setattr("lmk.runtime.detect.on_ray._results", lambda *_: iter([(0, refusal)]))
    with pytest.raises(UserError, match="CUDAExecutionProvider: did not load"):
        spread([str(blob_video[0])], tmp_path / "out", model, WANTED)


@pytest.mark.parametrize("lengths", [[0], [3, 0, 4], [7, 7], [1] * 9, [20]])
def test_joined_parts(tmp_path, monkeypatch, lengths):
    import pyarrow

    monkeypatch.setattr("lmk.runtime.outputs.parquet.GROUP_ROWS", 7)
    schema = pyarrow.schema([pyarrow.field("n", pyarrow.int64(), metadata={"unit": "m"})])
    first, paths = 0, []
    for length in lengths:
        paths.append(tmp_path / f"{first:03d}-{length}.parquet")
        rows = pyarrow.table({"n": range(first, first + length)}, schema)
        parquet.write_table(rows, paths[-1])
        first += length
    join_parquet(paths, tmp_path / "all.parquet")
    joined = parquet.ParquetFile(tmp_path / "all.parquet")
    assert joined.read()["n"].to_pylist() == list(range(first))
    assert joined.schema_arrow.equals(schema, check_metadata=True)
    sizes = [joined.metadata.row_group(n).num_rows for n in range(joined.num_row_groups)]
    assert all(size == 7 for size in sizes[:-1])


def test_what_is_said_does_not_depend_on_who_was_first():
    job = on_ray._Planned("folder", [])
    job.done = {2: Done(error="third"), 0: Done(), 1: Done(error="second")}
    assert str(job.end().error) == "second"
