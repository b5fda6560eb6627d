"""A student learns from images alone what its teacher finds, and is a pack like any other."""

import json
from dataclasses import replace

import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train.config import DistillConfig
from lmk.train.distill import ColouredViews, distances, distill
from lmk.train.network.bottleneck import NamingLayer
from lmk.train.network.category import load_pack, save_pack
from lmk.train.network.hourglass import WIDTHS, HourglassConfig, LandmarkNetwork

NAMES = ["nose", "tail"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A named pack of five landmarks, twice as wide as its students."""
    torch.manual_seed(0)
    model = LandmarkNetwork(HourglassConfig(5, 32, 64)).train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.rand(4, 3, 64, 64))
    model.naming = NamingLayer(torch.rand(2, 5), torch.zeros(2, 2))
    header = {"category": "cats", "method": "scratch", "scope": "all", "train_plain_convs": False}
    header |= {"core_sha256": "", "crop_scale": 1.25, "landmark_names": NAMES, "naming": {}}
    path = tmp_path_factory.mktemp("teacher") / "cats.safetensors"
    save_pack(path, model.eval(), header)
    return path


@pytest.fixture
def config(tmp_path):
    return DistillConfig(
        output=tmp_path / "cats-fast.safetensors",
        width="small",
        input_size=64,
        batch=8,
        steps=60,
        lr=3e-3,
        device="cpu",
        dtype="fp32",
        threads=1,
    )


def rows(config):
    return json.loads((config.output.with_suffix("") / "history.json").read_text())


def test_it_comes_nearer_to_its_teacher_and_says_how_near(config, teacher, butterflies):
    first = replace(config, steps=1, output=config.output.with_stem("first"))
    distill(first, teacher, None, butterflies)
    distill(config, teacher, None, butterflies)
    (before,), (after,) = rows(first), rows(config)
    assert after["mean_px"] < 0.7 * before["mean_px"]
    student, header = load_pack(config.output, None)
    taught = load_pack(teacher, None)[1]
    assert header["teacher"] == {
        "category": "cats",
        "sha256": taught["sha256"],
        "rotation": None,
        "mean_px": after["mean_px"],
        "p99_px": after["p99_px"],
    }
    assert (
        student.config == HourglassConfig(5, 16, 64, skips=False)
        and header["category"] == "cats-fast"
    )


def test_it_keeps_what_belongs_to_the_category(config, teacher, butterflies):
    distill(replace(config, steps=2), teacher, None, butterflies)
    student, header = load_pack(config.output, None)
    assert (header["landmark_names"], header["crop_scale"]) == (NAMES, 1.25)
    assert student.naming is not None and header["probe"] and header["finished"]
    assert torch.equal(student.naming.weight, load_pack(teacher, None)[0].naming.weight)


def test_resumed_equals_uninterrupted(config, teacher, butterflies, press_ctrl_c):
    config = replace(config, steps=6)
    straight = replace(config, output=config.output.with_stem("straight"))
    distill(straight, teacher, None, butterflies)
    with pytest.MonkeyPatch.context() as patch:
        press_ctrl_c(4)
        with pytest.raises(KeyboardInterrupt):
            distill(config, teacher, None, butterflies)
        patch.undo()
    assert load_pack(config.output, None)[1]["step"] == 4
    distill(replace(config, resume=True), teacher, None, butterflies)
    expected = load_pack(straight.output, None)[0].state_dict()
    for name, value in load_pack(config.output, None)[0].state_dict().items():
        assert torch.equal(expected[name], value), name


@pytest.mark.parametrize(
    ("width", "skips", "most"), [("full", False, 32), ("full", True, 31), ("medium", True, 31)]
)
def test_a_student_is_quicker(config, teacher, butterflies, width, skips, most):
    with pytest.raises(UserError, match=rf"--width: got .* at most {most}, .*cats.*; take .*small"):
        distill(replace(config, width=width, skips=skips), teacher, None, butterflies)
    assert not config.output.exists()


def test_as_wide_as_its_teacher_it_does_without_blocks(config, teacher, butterflies, monkeypatch):
    monkeypatch.setitem(WIDTHS, "medium", 32)
    distill(replace(config, width="medium", steps=1), teacher, None, butterflies)
    student = load_pack(config.output, None)[0].config
    assert student.width == 32 and not student.skips
    with pytest.raises(UserError, match="at most 31"):  # nor a student of such a student
        distill(
            replace(config, width="medium", output=config.output.with_stem("again")),
            config.output,
            None,
            butterflies,
        )


def test_the_teacher_sees_the_colours_as_they_are(config, butterflies):
    views = ColouredViews(butterflies, torch.arange(8).numpy(), config, torch.device("cpu"))
    seen, coloured = views(0)
    assert seen.shape == coloured.shape == (8, 3, 64, 64)
    assert not torch.equal(seen, coloured) and torch.equal(seen, views(0)[0])


def test_nothing_is_between_equal_maps():
    maps = torch.randn(2, 3, 8, 8)
    assert all(value.abs() < 1e-6 for value in distances(maps, maps, 0.2).values())
    other = distances(maps.flip(3), maps, 0.2)
    assert other["points"] > 0.1 and other["maps"] > 0.1
    assert distances(maps.flip(3), maps, 0.4)["maps"] == 2 * other["maps"]
