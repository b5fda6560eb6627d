"""`lmk bench` on a tiny detector: what is measured, left out, refused, written and claimed."""

import io
import json
import re

import pytest
import torch
from PIL import Image
from rich.console import Console

from lmk.benchmarks.runners import making, roofline
from lmk.benchmarks.runners.measured import bench
from lmk.benchmarks.runners.names import BenchOptions
from lmk.benchmarks.runners.run import find_crops
from lmk.benchmarks.runners.subject import open_subject
from lmk.benchmarks.runners.tables import figures, print_result, reasons
from lmk.runtime.errors import UserError
from lmk.runtime.model.template import read_template

QUICK = {"batches": (2, 1), "repeats": 1, "seconds": 0, "starts": 1, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def quick_parts(tmp_path_factory):
    """No ceilings of half a second, no trace of seconds, and PyTorch's threads as they were."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("here"))
        patched.setenv("TORCHINDUCTOR_CACHE_DIR", "restored afterwards")
        patched.setattr(roofline, "_quickest", lambda call, device: 0.001)
        patched.setattr("lmk.export.graph.pack.template_of", _template_beside)
        patched.setattr(making, "_LONG_S", 0.0)  # everything is made once
        yield
    torch.set_num_threads(threads)


def _template_beside(network):
    return read_template(_template_beside.path)


@pytest.fixture(scope="module")
def result(detector):
    """Of the pack, by its file."""
    _template_beside.path = detector.with_name("template-16-64-5-fp32.safetensors")
    return bench(detector, BenchOptions(against=("eager", "ort-cpu"), **QUICK))


def test_result_is_json_and_says_what_it_is_of(result):
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"model", "crops", "device", "threads", "batches", "machine"} | {
        "runners",
        "making",
        "cost",
        "ceilings",
        "left_out",
    }
    assert result["model"]["category"] == "teapots" and len(result["model"]["sha256"]) == 64
    assert result["crops"] == {"images": 128, "of": None, "calibration": 0}
    assert (result["threads"], result["batches"]) == (1, [1, 2])
    assert {"torch", "onnx"} <= set(result["machine"]["versions"])
    assert "commit" in result["machine"]


def test_every_runner_has_every_figure(result):
    assert list(result["runners"]) == ["eager", "ort-cpu"]
    for name, row in result["runners"].items():
        assert set(row["batches"]) == {"1", "2"}
        for values in row["batches"].values():
            assert set(values) >= {"p50", "p90", "p99", "max", "throughput", "speed_up"}
            assert values["repeats"] == 20
        assert row["first_s"] > 0
        assert ("drift_max" in row) == (name != "eager")
    assert result["runners"]["eager"]["batches"]["1"]["speed_up"] == 1
    assert result["runners"]["ort-cpu"]["drift_max"] < 0.01


def test_share_of_the_roofline_is_that_of_the_cost(result):
    row = result["runners"]["ort-cpu"]["batches"]["2"]
    cost, most = result["cost"]["2"], result["ceilings"]
    floor = max(cost["flops"] / most["flops"]["fp32"], 4 * cost["elements"] / most["bandwidth"])
    assert row["roofline"] == pytest.approx(floor / (row["p50"] / 1e3), abs=1e-3)


def test_making_has_export_switch_and_detect(result):
    making = result["making"]
    assert making["export"]["fp32"]["seconds"] > 0
    assert set(making["switch"]) == {"template_s", "rebuild_s", "times"}
    assert making["detect"]["first_s"] > 0
    assert result["left_out"] == {}


def printed(result, **more):
    screen = Console(record=True, width=120, file=io.StringIO())
    print_result({**result, **more}, screen)
    return screen.export_text()


@pytest.mark.parametrize(
    ("load", "cores", "warned"), [(0.1, 2, False), (3.5, 2, True), (3.5, 16, False)]
)
def test_busy_machine_is_warned_of(result, load, cores, warned):
    text = printed(result, machine={**result["machine"], "load": load, "cores": cores})
    assert ("warning: the machine was busy (load 3.5 on 2 cores" in text) == warned


def test_table_says_how_many_calls_and_no_percentile_of_few(result):
    text = printed(result)
    assert "batch 2: milliseconds, 20 calls each" in text
    assert result["runners"]["eager"]["batches"]["1"]["p99"] is None
    assert re.search(r"ort-cpu[ │]+[\d.]+[ │]+[\d.]+[ │]+-[ │]+[\d.]+", text)
    assert reasons(result)["eager.p99"] == "20 calls, expected 100; give more --seconds"


def test_bandwidth_alone_is_said_where_no_arithmetic_was_measured(result):
    text = printed(result, ceilings={"flops": {}, "bandwidth": 2e9})
    assert "GFLOP a crop; this cpu moves 2 GB/s" in text


def test_figures_have_names_for_claims(result):
    found = figures(result)
    assert found["ort-cpu.p50"] == found["ort-cpu.p50@1"] != found["ort-cpu.p50@2"]
    assert {"ort-cpu.drift_p99", "eager.first_s", "switch.times", "detect.first_s"} <= set(found)
    assert {"export.fp32_seconds", "eager.throughput@2", "ort-cpu.roofline@2"} <= set(found)
    assert all(isinstance(value, int | float) for value in found.values())


def test_model_without_its_pack_leaves_out_what_needs_it(exported_detector):
    found = bench(exported_detector, BenchOptions(**{**QUICK, "batches": (1,)}))
    assert set(found["runners"]) == {"ort-cpu", "openvino", "auto"} - set(found["left_out"])
    assert {"eager", "eager-bf16", "compile", "drift", "switch"} <= set(found["left_out"])
    assert "without its pack" in found["left_out"]["eager"]
    assert not {"drift_max", "speed_up"} & set(found["runners"]["ort-cpu"])
    assert "roofline" in found["runners"]["ort-cpu"]["batches"]["1"]  # counted from the file


def test_what_calibrates_is_not_measured(exported_detector, tmp_path):
    for index in range(7):
        Image.new("RGB", (80, 80), (40 * index, 0, 0)).save(tmp_path / f"{index}.png")
    subject = open_subject(exported_detector, None, tmp_path)
    crops, images, others = find_crops(subject, BenchOptions(data=str(tmp_path), batches=(8,)))
    assert (len(crops), images, len(others)) == (8, 4, 3)
    reds = {int(crop[..., 0].max()) for crop in crops}
    assert len(reds) == 4 and not reds & {int(crop[..., 0].max()) for crop in others}


def test_runner_asked_for_by_name_must_run(exported_detector):
    with pytest.raises(UserError, match="^eager: got teapots.onnx without its pack"):
        bench(exported_detector, BenchOptions(against=("eager",), **QUICK))
    with pytest.raises(UserError, match="^ort-cuda.*CUDAExecutionProvider"):
        bench(exported_detector, BenchOptions(against=("ort-cuda",), **QUICK))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"against": ("tflite",)}, "against: got 'tflite', expected auto or any of eager"),
        ({"batches": (0, 1)}, "batch: got (0, 1), expected numbers from 1 on"),
        ({"batches": ()}, "batch: got ()"),
        ({"repeats": 0}, "repeats: got 0, expected 1 or more"),
        ({"seconds": -1.0}, "seconds: got -1.0, expected 0 or more"),
        ({"threads": 0}, "threads: got 0"),
        ({"starts": 0}, "starts: got 0"),
    ],
)
def test_option_that_makes_no_sense_is_refused(values, words):
    with pytest.raises(UserError, match=f"^{re.escape(words)}"):
        BenchOptions(**values)


def test_command_prints_tables_writes_files_and_judges_claims(
    exported_detector, tmp_path, bench_says
):
    pytest.importorskip("matplotlib")
    options = ["--against", "ort-cpu", "--batch", "1,2", "--repeats", 1, "--seconds", 0]
    options += ["--starts", 1, "--threads", 1, "--device", "cpu"]
    files = ["--json", tmp_path / "bench.json", "--plot", tmp_path / "bench.png"]
    claims = ["--assert", "ort-cpu.p50 > 0", "--assert", "ort-cpu.p50@2 < 0*ort-cpu.p50"]
    code, out, _ = bench_says(exported_detector, *options, *files, *claims)
    assert code == 1
    assert "batch 2: milliseconds" in out and "left out: drift: " in out
    assert re.search(r"ort-cpu.p50 > 0: holds: [\d.]+ > 0\n", out)
    assert re.search(r"ort-cpu.p50@2 < 0\*ort-cpu.p50: does not hold: [\d.]+ < 0\n", out)
    lines = (tmp_path / "bench.json").read_text().splitlines()
    assert len(lines) == 1 and "ort-cpu" in json.loads(lines[0])["runners"]
    assert Image.open(tmp_path / "bench.png").size[0] > 800


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--assert", "eager.p50"], "is not one comparison"),
        (
            ["--assert", "eager.p50 < 1", "--against", "ort-cpu"],
            "got 'eager', expected one of",
        ),
        (["--assert", "ort-cpu.p51 < 1"], "got 'p51' of ort-cpu, expected one of: p50, p90"),
        (["--assert", "ort-cpu.p50@4 < 1"], "got batch 4, expected one of: 1, 8, 32"),
        (["--assert", "ort-cpu.rss@8 < 1"], "expected ort-cpu.rss: it has no batch"),
        (["--assert", "eager.p99 < 1", "--repeats", "50"], "got --repeats 50, expected 100"),
        (["--against", "eager-tf32", "--assert", "1 < 2"], "eager-tf32: got the CPU"),
        (["--against", "eager,,ort-cpu"], "got 'eager,,ort-cpu', expected names with commas"),
        (["--rounds", "3"], "--rounds: got one, expected it with --video only"),
        (["--video", "x.mp4", "--plot", "x.png"], "--plot: got one, expected no such option with"),
        (["--video", "x.mp4", "--batch", "8"], "--batch: got one, expected no such option with"),
        (["--against", "tflite"], "against: got 'tflite'"),
        (["--plot", "bench.gif"], "plot: got 'bench.gif', expected a name that ends in .png"),
        (["--json", "nowhere.json/bench.json"], "nowhere.json: is a file"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_measured(
    exported_detector, tmp_path, monkeypatch, bench_says, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere.json").write_text("")
    monkeypatch.setattr(
        "lmk.benchmarks.runners.measured.bench", lambda *given: pytest.fail("measured")
    )
    code, _, line = bench_says(exported_detector, *arguments)
    assert code == 2 and words in line


def test_no_folder_is_left_behind_by_what_fails(tmp_path, monkeypatch, bench_says):
    monkeypatch.chdir(tmp_path)
    code, _, line = bench_says("teacups", "--json", "new/bench.json")
    assert code == 2 and "got 'teacups', which is no file and no category here" in line
    assert not (tmp_path / "new").exists()


def test_plot_without_matplotlib_names_the_cure(exported_detector, monkeypatch, bench_says):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, line = bench_says(exported_detector, "--plot", "bench.png")
    assert code == 2 and re.search(r"matplotlib: not installed.*\[bench\]", line)
