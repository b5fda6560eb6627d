"""A runner in a process of its own: what it imports, what it reports, how it fails."""

import subprocess
import sys

import numpy as np
import pytest

from lmk.benchmarks.runners import process
from lmk.benchmarks.runners.names import RunnerSpec
from lmk.benchmarks.runners.process import detect, peak_mib, start
from lmk.runtime.errors import UserError
from lmk.runtime.model.probe import probe_crops


@pytest.fixture
def crops(tmp_path):
    path = tmp_path / "crops.npy"
    np.save(path, probe_crops(64, 2))
    return path


def spec(kind, file, **more):
    return RunnerSpec(kind, kind, "fp32", "cpu", 1, (1, 2), str(file), **more)


def test_process_reports_its_first_result_and_memory(exported_detector, crops):
    left = iter([900 << 20, 600 << 20] * 2)
    found = start(spec("ort-cpu", exported_detector), crops, 2, lambda: next(left))
    assert set(found) == {"first_s", "again_s", "rss", "device_memory"}
    assert found["first_s"] > 0 and found["again_s"] > 0
    assert found["device_memory"] == 300
    if sys.platform == "linux":
        # Far less than PyTorch takes: it is the process's own memory, not that of the tests.
        assert 20 < found["rss"] < 300
        assert peak_mib() > found["rss"]


def test_single_start_has_no_second_one(exported_detector, crops):
    found = start(spec("ort-cpu", exported_detector), crops, 1)
    assert "again_s" not in found and "device_memory" not in found


def test_failure_is_said_in_the_words_of_the_process(tmp_path, crops):
    with pytest.raises(UserError) as error:
        start(spec("ort-cpu", tmp_path / "nowhere.onnx"), crops, 1)
    assert str(error.value).startswith("ort-cpu, in a process of its own: ")
    assert "nowhere.onnx: no such file" in str(error.value)


def test_runner_without_pytorch_is_opened_without_it(exported_detector, crops):
    code = (
        "import sys\nfor name in ('torch', 'onnx', 'matplotlib', 'openvino'):\n"
        "    sys.modules[name] = None  # importing it fails\n"
        "from lmk.benchmarks.runners.process import main\nmain(*sys.argv[1:])"
    )
    arguments = [spec("ort-cpu", exported_detector).to_json(), str(crops)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], input="", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(process._FIRST)


def test_detect_is_timed_from_start_to_end(exported_detector, tmp_path):
    crop = probe_crops(64, 1)[0]
    assert set(detect(exported_detector, crop, 1, 2)) == {"first_s", "again_s"}
    with pytest.raises(UserError, match="^lmk detect: .*nowhere.onnx: no such file"):
        detect(tmp_path / "nowhere.onnx", crop, 1, 1)
