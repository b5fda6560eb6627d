"""An entry is all that a runner takes to be opened, offered, examined and measured."""

import subprocess
import sys

import pytest

from lmk.runtime.runners import RUNNERS

# Before anything else is imported, as a line in the registry would be.
ADD = """
from types import SimpleNamespace
from lmk.runtime.runners import RUNNERS, Package, RunnerEntry

RUNNERS.append(RunnerEntry(
    name="abacus",
    title="Abacus",
    open=lambda path, threads, batches: SimpleNamespace(name=f"abacus {path.name} {threads}"),
    packages=(Package("lmk_no_such_abacus", ("lmk-no-such-abacus",)),),
    device="beads",
    says=("abacus",),
    said=("int8",),
))
"""
USES = {
    "opened": """
from lmk.runtime.runners import open_runner
print(open_runner("cats.onnx", "beads", 2).name)
""",
    "offered": """
from click.testing import CliRunner
from lmk.runtime.detect.command import detect_command
print(CliRunner().invoke(detect_command, ["--help"]).output)
""",
    "examined": """
from lmk.runtime.doctor import diagnosis
diagnosis._PACKAGES = tuple(p for p in diagnosis._PACKAGES if p.module.startswith("lmk")) + (
    diagnosis.ONNXRUNTIME, diagnosis.CUDA_CORE, diagnosis.TENSORRT_RTX)
print([check.cure for check in diagnosis.examine().checks if check.name == "lmk-no-such-abacus"])
""",
    "measured": """
from lmk.benchmarks.commands import bench_command
from lmk.benchmarks.runners.names import TITLES, RunnerSpec, defaults, open_runner, parse_name
print(TITLES["abacus"], "abacus" in defaults("cpu", False), parse_name("abacus-int8"))
print(open_runner(RunnerSpec("abacus", "abacus", "fp32", "cpu", 1, (1,), "dogs.onnx")).name)
print([p.help for p in bench_command.params if p.name == "against"])
""",
}
WORDS = {
    "opened": ["abacus cats.onnx 2"],
    "offered": ["cpu|cuda|openvino|beads"],
    "examined": ["['pip install lmk-no-such-abacus']"],
    "measured": ["Abacus True ('abacus', 'int8')", "abacus dogs.onnx 1", "openvino, abacus, also"],
}


@pytest.mark.parametrize("use", USES)
def test_entry_is_all_that_a_runner_takes(use, tmp_path):
    (tmp_path / "cats.onnx").touch()
    done = subprocess.run(
        [sys.executable, "-c", ADD + USES[use]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in WORDS[use]), done.stdout


def test_each_file_and_device_has_one_runner():
    onnx = [entry.device for entry in RUNNERS if entry.suffix == ".onnx"]
    assert len(set(onnx)) == len(onnx)
    assert len({entry.name for entry in RUNNERS}) == len(RUNNERS)
