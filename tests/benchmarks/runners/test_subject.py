"""What a name, a pack, an exported model and an engine give runners to open."""

import shutil
from pathlib import Path

import pytest

from lmk.benchmarks.runners import subject
from lmk.benchmarks.runners.subject import open_subject
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import load
from lmk.runtime.model.engine_file import EngineInfo, Recipe, sha256, write_engine
from lmk.train.network import checkpoint


@pytest.fixture
def subject_of(tmp_path, monkeypatch):
    """Return a function: a file -> the subject, in a folder without runs/."""
    monkeypatch.chdir(tmp_path)
    return lambda path: open_subject(Path(path), None, tmp_path)


def spec_of(subject, name):
    return subject.spec(name, "cpu", 1, (1,), None)


def exporting(monkeypatch):
    """Let exports be files that only say what they were made of; return the list of them."""
    made = []

    def export(pack, core, path, crops, force, precision):
        made.append((pack.name, core.name, precision))
        path.write_bytes(precision.encode())

    monkeypatch.setattr("lmk.export.graph.export_pack", export)
    return made


def test_pack_is_what_pytorch_runs_and_is_exported_once_a_precision(
    detector, subject_of, monkeypatch
):
    made, subject = exporting(monkeypatch), subject_of(detector)
    eager = spec_of(subject, "eager-bf16")
    assert (eager.file, eager.core) == (str(detector), str(detector.with_name("core.safetensors")))
    assert eager.precision == "bf16"
    first, again = spec_of(subject, "ort-cpu"), spec_of(subject, "openvino")
    assert first.file == again.file and first.precision == "fp32"
    assert spec_of(subject, "ort-cpu-fp16").precision == "fp16"
    assert [precision for *_, precision in made] == ["fp32", "fp16"]
    assert set(subject.exported) == {"fp32", "fp16"} and subject.exported["fp16"]["bytes"] == 4


def test_category_stands_for_its_pack(detector, subject_of, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(detector.parent, folder)
    assert subject_of("teapots").pack.samefile(folder / "teapots.safetensors")


def test_exported_model_runs_as_it_is_and_pytorch_lacks_its_pack(exported_detector, subject_of):
    subject = subject_of(exported_detector)
    assert spec_of(subject, "ort-cpu").file == str(exported_detector)
    for name in ("eager", "compile", "ort-cpu-fp16"):
        with pytest.raises(UserError, match=f"^{name}: got teapots.onnx without its pack, sha256"):
            spec_of(subject, name)


def test_pack_of_an_exported_model_is_found_beside_it(detector, exported_detector, subject_of):
    path = shutil.copy(exported_detector, detector.with_name("copied.onnx"))
    subject = subject_of(path)
    assert spec_of(subject, "eager").file == str(detector)
    assert subject.facts["sha256"] == sha256(exported_detector.read_bytes())


def test_engine_is_run_by_the_library_that_built_it(exported_detector, subject_of, tmp_path):
    with load(exported_detector) as landmarker:
        contract = landmarker.contract
    recipe = Recipe("", "fp32", "tensorrt_rtx", "1.7", "", (), (1,), False, 3, None)
    info = EngineInfo(contract, recipe, {}, {}, {}, 1.0, 4, sha256(b"plan"))
    write_engine(tmp_path / "teapots.engine", info, b"plan")
    subject = subject_of(tmp_path / "teapots.engine")
    spec = subject.spec("rtx", "cuda", 1, (1,), None)
    assert (spec.file, spec.device) == (str(tmp_path / "teapots.engine"), "cuda")
    with pytest.raises(UserError, match="ort-cpu: got teapots.engine without its pack"):
        spec_of(subject, "ort-cpu")


def test_no_engine_is_built_where_there_is_no_gpu(exported_detector, subject_of, monkeypatch):
    def no_gpu():
        raise UserError("cuda device 0: got 'none'")

    monkeypatch.setattr(subject, "open_device", no_gpu)
    engine = subject_of(exported_detector)
    with pytest.raises(UserError, match="cuda device 0"):
        engine.spec("rtx", "cuda", 1, (1,), None)
    assert not engine.built


def test_what_is_taken_without_being_asked_is_a_runner_of_its_own(
    exported_detector, subject_of, monkeypatch
):
    subject, chosen = subject_of(exported_detector), exported_detector.with_name("other.onnx")
    shutil.copy(exported_detector, chosen)
    monkeypatch.setattr(
        "lmk.benchmarks.runners.subject.settle", lambda *given: (chosen, "openvino")
    )
    spec = spec_of(subject, "auto")
    assert (spec.name, spec.kind, spec.file) == ("auto", "openvino", str(chosen))
    assert (spec.precision, spec.device) == ("fp32", "cpu")


def test_a_student_is_measured_beside_its_own_teacher_only(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, pupil = exporting(monkeypatch), tmp_path / "pupil.safetensors"
    with pytest.raises(UserError, match="--student: got .*teapots.safetensors, of no teacher"):
        open_subject(detector, None, tmp_path, detector)
    tensors, header = checkpoint.load(detector, "pack")
    checkpoint.save(pupil, "pack", tensors, header | {"teacher": {"sha256": header["sha256"]}})
    shutil.copy(detector.with_name("core.safetensors"), tmp_path)
    (tmp_path / "student").rmdir()
    subject = open_subject(detector, None, tmp_path, pupil)
    own, its = spec_of(subject, "ort-cpu"), spec_of(subject, "student-ort-cpu")
    assert its.name == "student-ort-cpu" and its.kind == own.kind and its.file != own.file
    assert [name for name, *_ in made] == [detector.name, pupil.name]
    with pytest.raises(UserError, match="student-ort-cpu: got no student"):
        spec_of(open_subject(detector, None, tmp_path), "student-ort-cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("teacups", "no such file"),
        ("nowhere.onnx", "no such file"),
        ("nowhere.engine", "no such file"),
        ("core.safetensors", "expected a category pack"),
    ],
)
def test_what_is_no_model_is_refused(detector, subject_of, tmp_path, name, words):
    shutil.copy(detector.with_name("core.safetensors"), tmp_path)
    with pytest.raises(UserError, match=words):
        subject_of(tmp_path / name)


def test_unknown_name_is_refused_with_the_categories(subject_of):
    with pytest.raises(
        UserError, match="got 'teacups', which is no file and no category here, exp"
    ):
        subject_of("teacups")
