"""engine_place: a library, a GPU or a format that is missing is named, with the cure."""

import sys

import pytest

from lmk.export.engine import place
from lmk.export.engine.options import EngineOptions
from lmk.export.engine.place import check_precision, check_targets, find_place, module
from lmk.runtime.errors import UserError
from lmk.runtime.runners import Gpu

ADA = Gpu("NVIDIA L4", (8, 9))


class FakeLibrary:
    """What `find_place` looks at."""

    __name__, __version__ = "tensorrt_rtx", "1.7"

    class ComputeCapability:
        __members__ = dict.fromkeys(("NONE", "CURRENT", "SM75", "SM86", "SM89", "SM120"))


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets this machine's GPU; both libraries are there."""
    monkeypatch.setattr(place, "module", lambda library: FakeLibrary)

    def have(gpu):
        monkeypatch.setattr(place, "local_gpu", lambda: gpu)

    return have


@pytest.mark.parametrize(
    "library, packages",
    [
        ("tensorrt", "tensorrt cuda-core cuda-bindings"),
        ("tensorrt_rtx", "tensorrt-rtx cuda-core cuda-bindings"),
    ],
)
def test_missing_library_names_the_line(monkeypatch, library, packages):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"{library}: got no module .*; pip install {packages}$"):
        module(library)


def test_broken_library_says_why(monkeypatch):
    def broken(name):
        raise ImportError("libnvinfer.so.11: cannot open\nshared object file")

    monkeypatch.setattr(place.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"cannot be imported \(libnvinfer\.so\.11: .* file\)"):
        module("tensorrt")


def test_tensorrt_needs_the_gpu(machine):
    machine(None)
    with pytest.raises(UserError, match=r"tensorrt: got no GPU.*`--engine rtx`, which builds"):
        find_place(EngineOptions("tensorrt"), "fp32")


def test_tensorrt_builds_for_this_gpu_alone(machine):
    machine(ADA)
    place = find_place(EngineOptions("tensorrt"), "fp32")
    assert (place.gpu, place.targets, place.refittable) == (ADA, ("8.9",), True)
    assert find_place(EngineOptions("tensorrt", targets=("8.9",)), "fp32") == place
    with pytest.raises(UserError, match=r"targets: got 8\.6, expected 8\.9, this machine's NVIDIA"):
        find_place(EngineOptions("tensorrt", targets=("8.6",)), "fp32")


def test_precision_that_this_gpu_lacks(machine):
    machine(Gpu("NVIDIA A10", (8, 6)))
    with pytest.raises(UserError, match=r"precision fp8: got compute capability 8\.6"):
        find_place(EngineOptions("tensorrt"), "fp8")


def test_rtx_needs_no_gpu(machine):
    machine(None)
    place = find_place(EngineOptions("tensorrt_rtx", targets=("12.0", "8.6", "12.0")), "fp32")
    assert (place.gpu, place.targets, place.refittable) == (None, ("8.6", "12.0"), False)
    assert find_place(EngineOptions("tensorrt_rtx"), "fp8").targets == ()


def test_refit(machine):
    machine(None)
    with pytest.raises(UserError, match="refit: got no GPU, which TensorRT needs"):
        find_place(EngineOptions("tensorrt_rtx", refittable=True), "fp32")
    machine(ADA)
    assert find_place(EngineOptions("tensorrt_rtx"), "fp32").refittable
    assert not find_place(EngineOptions("tensorrt_rtx", refittable=False), "fp32").refittable


@pytest.mark.parametrize("target", ["9.0", "86", "", "x.y"])
def test_unknown_target_lists_the_known(target):
    expected = rf"targets: got '{target}', expected some of 7\.5, 8\.6, 8\.9, 12\.0, .*Library 1\.7"
    with pytest.raises(UserError, match=expected):
        check_targets(FakeLibrary, ("8.6", target))


@pytest.mark.parametrize(
    "precision, capability, fitting",
    [
        ("fp8", "8.6", "fp32, fp16, int8, bf16"),
        ("fp8", "7.5", "fp32, fp16, int8"),
        ("bf16", "7.5", "fp32, fp16, int8"),
        ("fp32", "6.1", "none"),
    ],
)
def test_unsupported_precision_says_which_are(precision, capability, fitting):
    with pytest.raises(UserError, match=rf"{precision}: .*{capability} takes {fitting}:"):
        check_precision(precision, ("12.0", capability))
