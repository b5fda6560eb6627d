"""engine_cache: built once, for a reason in words; what is damaged is built again."""

import multiprocessing
import os
import time
from dataclasses import replace

import pytest

from lmk.export.engine.cache import cached_engine
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import Contract
from lmk.runtime.model.engine_file import EngineInfo, Recipe, sha256

RECIPE = Recipe(
    onnx_sha256="1" * 64,
    precision="fp32",
    library="tensorrt_rtx",
    library_version="1.6",
    gpu="",
    targets=("8.6",),
    batches=(1, 8),
    refittable=False,
    level=3,
    workspace_mib=None,
)
PACK = "p" * 64
CHANGES = [
    ({"precision": "fp16", "onnx_sha256": "2" * 64}, "no engine for precision fp16 yet"),
    ({"library_version": "1.7"}, "rebuilt: TensorRT for RTX 1.6 -> 1.7"),
    ({"targets": ("7.5",)}, "no engine for compute capability 7.5 yet"),
    ({"targets": ()}, "no engine for compute capability 8.0 and newer yet"),
    ({"batches": (1, 64)}, "no engine for batches of 1, 64 yet"),
    ({"onnx_sha256": "2" * 64}, "rebuilt: the ONNX file has changed"),
    ({"level": 5}, "rebuilt: level 3 -> 5"),
    ({"library": "tensorrt"}, "no engine of TensorRT yet"),
]


def builder(recipe, plan=b"plan", made=None):
    """Return a `build` that gives `plan` and notes each call in `made`."""

    def build():
        if made is not None:
            made.append(recipe)
        contract = Contract("pots", 1, 64, recipe.precision, "c" * 64, PACK, ("p0",))
        return EngineInfo(contract, recipe, {}, {}, {}, 0.0, len(plan), sha256(plan)), plan

    return build


def engines(folder):
    return sorted(folder.glob("*.engine"))


def test_built_once(tmp_path):
    made = []
    first = cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE, made=made))
    second = cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE, made=made))
    assert (first.reason, second.reason) == ("no engine of this pack yet", "")
    assert (first.info, first.plan) == (second.info, second.plan)
    assert made == [RECIPE] and len(engines(tmp_path)) == 1


@pytest.mark.parametrize("changes, reason", CHANGES)
def test_reason_in_words(tmp_path, changes, reason):
    cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE))
    new = replace(RECIPE, **changes)
    assert cached_engine(new, PACK, tmp_path, builder(new)).reason == reason
    assert cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE)).reason == ""  # both are kept


def test_nearest_engine_of_this_pack_gives_the_reason(tmp_path):
    for changes in ({"precision": "fp16", "library_version": "1.5"}, {}):
        recipe = replace(RECIPE, **changes)
        cached_engine(recipe, PACK, tmp_path, builder(recipe))
    new = replace(RECIPE, library_version="1.7")
    reasons = [cached_engine(new, p, tmp_path, builder(new)).reason for p in (PACK, "other")]
    assert reasons[0] == "rebuilt: TensorRT for RTX 1.6 -> 1.7"


def test_engines_of_other_packs_are_no_reason(tmp_path):
    cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE))
    new = replace(RECIPE, onnx_sha256="2" * 64)
    reason = cached_engine(new, "other", tmp_path, builder(new)).reason
    assert reason == "no engine of this pack yet"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "truncated: "),
        (lambda data: data[: len(data) // 2], "truncated: "),
        (lambda data: data[:-1], "truncated: "),
        (lambda data: data[:-1] + b"?", "damaged: the plan's sha256 is not its header's"),
    ],
)
def test_damaged_engine_is_rebuilt(tmp_path, damage, reason):
    first = cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE))
    (path,) = engines(tmp_path)
    data = path.read_bytes()
    path.write_bytes(damage(data))
    again = cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE))
    assert again.reason.startswith(f"rebuilt: cached engine: {reason}")
    assert again.plan == first.plan and path.read_bytes() == data


def test_unreadable_neighbour_is_no_obstacle(tmp_path):
    (tmp_path / "fp32-old.engine").write_bytes(b"rubbish")
    assert cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE)).plan == b"plan"


@pytest.mark.parametrize("error", [UserError("refused"), KeyboardInterrupt()])
def test_failed_build_leaves_nothing_and_no_lock(tmp_path, error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        cached_engine(RECIPE, PACK, tmp_path, fail)
    assert engines(tmp_path) == []
    assert cached_engine(RECIPE, PACK, tmp_path, builder(RECIPE)).plan == b"plan"


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"engine cache: .*file: is a file.*LMK_CACHE names"):
        cached_engine(RECIPE, PACK, tmp_path / "file" / "engines", builder(RECIPE))


def _want(folder, log, barrier):
    def build():
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return builder(RECIPE)()

    def waiting():
        with open(f"{log}.waiting", "a") as file:
            file.write(f"{os.getpid()}\n")

    barrier.wait()
    assert cached_engine(RECIPE, PACK, folder, build, waiting).plan == b"plan"


def test_two_processes_build_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(3)
    arguments = (tmp_path / "cache", tmp_path / "log", barrier)
    wanting = [fork.Process(target=_want, args=arguments) for _ in range(3)]
    for process in wanting:
        process.start()
    for process in wanting:
        process.join(120)
    assert [process.exitcode for process in wanting] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
