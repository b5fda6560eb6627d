"""What a long detection is watched for is really taken from it."""

from lmk.benchmarks.clip import write_clip
from lmk.benchmarks.studies.memory import watch
from lmk.runtime.landmarker import load


def test_watch_reports_the_run_it_made(tmp_path, exported_detector, capsys):
    clip = write_clip(tmp_path / "clip.mp4", 0.3)
    with load(exported_detector, threads=1) as landmarker:
        result = watch(landmarker, clip, "center", tmp_path / "out")
    assert (result["frames"], result["size"]) == (9, (1080, 1920))
    assert 0 < result["cpu_share"] <= 1.2 and result["frames_per_second"] > 0
    assert result["samples"][0][2] == result["mib_at_end"] > 50
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {".lmk.json", "landmarks.csv", "overlay.mp4"}
    assert "MiB" in capsys.readouterr().out
