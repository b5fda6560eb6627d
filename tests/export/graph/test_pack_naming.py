"""A pack whose points were named: eager ≡ folded ≡ exported ≡ composed, in every precision."""

import csv

import numpy as np
import onnx
import pytest
from PIL import Image

from lmk.export.graph.pack import export_pack
from lmk.export.graph.template import fill
from lmk.export.graph.trace import fold
from lmk.export.graph.verify import probe_crops, run_eager, run_onnx
from lmk.runtime.errors import UserError
from lmk.runtime.images import crop, square_around, to_frame
from lmk.runtime.model import workspace
from lmk.runtime.model.probe import LIMITS_PX, check
from lmk.runtime.model.template import compose, stamp
from lmk.runtime.model.weights import read_header, read_weights
from lmk.train.judge.naming import name_pack, turning_as
from lmk.train.judge.point_fit import Fit
from lmk.train.judge.point_maps import Learning, Learnt
from lmk.train.network.category import halve_pack, load_pack, with_maps

SIZE, SCALE = 64, 1.25  # the crop_scale of `pack_path`
NAMES = ("l_eye", "r_eye", "nose", "Mouth")


@pytest.fixture(scope="session")
def points(pack_path, core_path, crops, tmp_path_factory):
    """Images, and points in them that hang on what the pack finds there."""
    folder = tmp_path_factory.mktemp("few")
    model, _ = load_pack(pack_path, core_path)
    square = square_around((0, 0, 50, 50), SCALE)
    images = crops[:, 7:57, 7:57]
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.png")
    seen = np.stack([crop(image, square, SIZE) for image in images])
    found, _ = run_eager(model, seen)
    named = np.stack(
        [
            found[:, 0],
            found[:, 1] * 1.2 - found[:, 2] * 0.2,
            found.mean(axis=1) + 4,
            found[:, 3] * 0.4 + found[:, 4] * 0.6 - 2,
        ],
        axis=1,
    )
    return folder, seen, named, square


@pytest.fixture(scope="session")
def table(points):
    folder, _, named, square = points
    path = folder / "annotations.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *(f"{n}_{a}" for n in NAMES for a in "xy")])
        for index, each in enumerate(named):
            writer.writerow([f"{index}.png", *to_frame(each, square, SIZE).ravel()])
    return path


@pytest.fixture(scope="session")
def named_pack(pack_path, core_path, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("named") / "teapots-named.safetensors"
    report, _ = name_pack(pack_path, core_path, table, path, ridge=1e-9)
    assert report["error_px"] < 0.01
    return path


@pytest.fixture(scope="session")
def named_onnx(named_pack, core_path, template, points, tmp_path_factory):
    path = tmp_path_factory.mktemp("named-onnx") / "teapots-named.onnx"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lmk.export.graph.pack.template_of", lambda network: template)
        return path, export_pack(named_pack, core_path, path, points[1])


def test_the_header_says_where_it_comes_from(named_pack, pack_path):
    header, before = read_header(named_pack), read_header(pack_path)
    kept = [f"_{name}" for name in before["landmark_names"]]
    assert header["landmark_names"] == [*NAMES, *kept] and header["following"] == len(kept)
    assert header["naming"]["from_sha256"] == before["sha256"] != header["sha256"]
    assert header["naming"]["images"] == 10 and header["naming"]["ridge"] == 1e-9
    assert header["network"] == before["network"] and header["crop_scale"] == SCALE
    assert np.array(header["probe"]["landmarks"]).shape == (4, 4 + len(kept), 2)


def test_the_points_come_out_of_the_file_and_what_they_were_made_of(named_onnx, exported, points):
    landmarks, scores = run_onnx(named_onnx[0].read_bytes(), points[1])
    np.testing.assert_allclose(landmarks[:, :4], points[2], atol=0.02)
    for kept, found in zip(
        (landmarks, scores), run_onnx(exported[0].read_bytes(), points[1]), strict=True
    ):
        np.testing.assert_allclose(kept[:, 4:], found, atol=1e-3)
    assert landmarks.dtype == np.float32 and 0 <= scores.min() <= scores.max() <= 1 + 1e-6
    contract = named_onnx[1]
    assert contract.given_names == NAMES and contract.num_landmarks == landmarks.shape[1]


def test_the_graph_is_the_regressor_of_the_plain_graph(
    named_pack, named_onnx, exported, points, crops
):
    tensors = read_weights(named_pack, "pack")[0]
    weight, offset = tensors["naming.weight"].astype(np.float64), tensors["naming.offset"]
    for images in (points[1], crops):
        found, scores = run_onnx(exported[0].read_bytes(), images)
        expected = np.einsum("mk,nka->nma", weight, found) + offset
        named, their_scores = run_onnx(named_onnx[0].read_bytes(), images)
        np.testing.assert_allclose(named, expected, atol=1e-3)
        share = np.abs(weight) / np.abs(weight).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(their_scores, scores @ share.T, atol=1e-5)


def test_eager_folded_exported(named_pack, core_path, named_onnx, crops):
    model, _ = load_pack(named_pack, core_path)
    folded, exported = run_eager(fold(model), crops), run_onnx(named_onnx[0].read_bytes(), crops)
    for other in (folded, exported):
        np.testing.assert_allclose(other[0], run_eager(model, crops)[0], atol=0.01)
    assert named_onnx[1].drift["max_px"] < 0.01
    assert named_onnx[1].drift["randomised"]["max_px"] < 0.01


def test_composed_is_exported(named_pack, core_path, template, named_onnx):
    """Byte for byte, so what runs without PyTorch is what was verified with it."""
    pack, header = read_weights(named_pack, "pack")
    made = compose(template, read_weights(core_path, "core")[0], pack, header, "pack")
    assert named_onnx[0].read_bytes() == stamp(made, named_onnx[1])
    assert onnx.load_from_string(made).SerializeToString() == made
    model, _ = load_pack(named_pack, core_path)
    assert fill(template, model, header) == made
    drift = check(made, header["probe"], SIZE, header["landmark_names"], "pack")
    assert drift["max_px"] < 0.01


def test_halved_as_what_ships(named_pack, core_path, template, crops, tmp_path):
    half = tmp_path / "half.safetensors"
    halve_pack(named_pack, core_path, half)
    pack, header = read_weights(half, "pack")
    made = compose(template, read_weights(core_path, "core")[0], pack, header, "pack")
    eager = run_eager(load_pack(half, core_path)[0], crops)
    np.testing.assert_allclose(run_onnx(made, crops)[0], eager[0], atol=0.01)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_every_precision(
    named_pack, core_path, same_trace, crops, tmp_path, monkeypatch, precision
):
    """What names the points stays in float32."""
    monkeypatch.setitem(LIMITS_PX, precision, {"mean": 60.0})  # random weights drift as they like
    images = probe_crops(SIZE, 16, seed=1)
    path = tmp_path / "out.onnx"
    contract = export_pack(named_pack, core_path, path, images, precision=precision)
    assert (contract.precision, contract.given_names) == (precision, NAMES)
    graph = onnx.load(path).graph
    kinds = {t.name: t.data_type for t in graph.initializer if t.name.startswith("naming.")}
    assert set(kinds) == {"naming.weight", "naming.offset", "naming.shares"}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT}
    if precision == "fp16":
        assert run_onnx(path.read_bytes(), crops)[0].shape == (10, contract.num_landmarks, 2)


def test_an_engine(named_onnx, tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    from lmk.export.engine import build, place
    from lmk.export.engine.options import EngineOptions
    from lmk.runtime.model.engine_file import read_engine

    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(place, "local_gpu", lambda: None)
    output = tmp_path / "a.engine"
    build.export_engine(named_onnx[0], output, EngineOptions("tensorrt_rtx", batches=(1,)))
    assert read_engine(output)[0].contract.given_names == NAMES


def test_nothing_is_written_over_what_exists_or_was_named_already(
    pack_path, named_pack, core_path, table, tmp_path
):
    output = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match="points are named already, expected the one it was made"):
        name_pack(named_pack, core_path, table, output)
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already.*--force"):
        name_pack(pack_path, core_path, table, output)
    assert output.read_bytes() == b"mine"
    name_pack(pack_path, core_path, table, output, force=True)
    assert read_header(output)["landmark_names"][:4] == list(NAMES)


def test_a_single_point_that_cannot_be_told_is_left_out(pack_path, core_path, table, tmp_path):
    rng = np.random.default_rng(3)
    lines = table.read_text().splitlines()
    ends = ["leg_x,leg_y", *(f"{x:.1f},{y:.1f}" for x, y in rng.uniform(5, 45, (len(lines), 2)))]
    other = table.with_name("leg.csv")
    other.write_text("\n".join(map(",".join, zip(lines, ends, strict=False))))
    report, seen = name_pack(pack_path, core_path, other, tmp_path / "out.safetensors")
    assert report["left_out"] == ["leg"] and seen.scheme.names == NAMES
    assert [row["name"] for row in report["points"]] == list(NAMES)
    assert read_header(tmp_path / "out.safetensors")["landmark_names"][:5] == [*NAMES, "_p0"]


@pytest.fixture
def taught(monkeypatch, points):
    """In place of learning: the nose and the mouth have maps, those of two landmarks."""

    def learn(model, crops, around, named, parts, learning, ridge):
        assert around.shape[1:3] == (80, 80) and len(parts) == 3
        count = model.config.num_landmarks
        network = with_maps(model, [[row] for row in (*range(count), 3, 4)])
        weight = np.zeros((4, count + 2))
        weight[[0, 1, 2, 3], [0, 1, count, count + 1]] = 1
        return Learnt(network, Fit(weight, np.zeros((4, 2)), 1.0), named + 0.001, count)

    monkeypatch.setattr("lmk.train.judge.naming.learn_maps", learn)


def test_maps_of_points_are_exported_and_composed_like_others(
    taught, pack_path, core_path, table, template, same_trace, crops, tmp_path
):
    path, ridge = tmp_path / "out.safetensors", 10.0  # too strong to be nearer than what is learnt
    report, _ = name_pack(pack_path, core_path, table, path, ridge, learning=Learning(steps=1))
    assert report["learnt"] == ["nose", "Mouth"] and report["error_px"] < 0.01
    model, header = load_pack(path, core_path)
    assert header["network"]["num_landmarks"] == 7 and header["following"] == 5
    plain = run_eager(load_pack(pack_path, core_path)[0], crops)[0]
    found = run_eager(model, crops)[0]
    np.testing.assert_allclose(found, plain[:, [0, 1, 3, 4, 0, 1, 2, 3, 4]], atol=1e-3)
    contract = export_pack(path, core_path, tmp_path / "out.onnx", crops)
    exported = (tmp_path / "out.onnx").read_bytes()
    np.testing.assert_allclose(run_onnx(exported, crops)[0], found, atol=0.01)
    assert contract.given_names == NAMES and contract.drift["max_px"] < 0.01


def test_what_is_learnt_is_not_taken_where_landmarks_are_nearer(
    taught, pack_path, core_path, table, tmp_path
):
    path = tmp_path / "out.safetensors"
    report, _ = name_pack(pack_path, core_path, table, path, 1e-9, learning=Learning(steps=1))
    assert report["learnt"] == [] and report["error_px"] < 0.001
    assert read_header(path)["network"] == read_header(pack_path)["network"]


def test_what_is_learnt_is_taken_where_landmarks_tell_nothing(
    taught, pack_path, core_path, table, tmp_path
):
    lines = table.read_text().splitlines()
    rng = np.random.default_rng(0)
    rows = [",".join([line.split(",")[0], *map(str, rng.uniform(0, 50, 8))]) for line in lines[1:]]
    other = table.with_name("anywhere.csv")
    other.write_text("\n".join([lines[0], *rows]))
    path = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match="landmarks do not tell where they are; let them be learnt"):
        name_pack(pack_path, core_path, other, path)
    report, _ = name_pack(pack_path, core_path, other, path, learning=Learning(steps=1))
    assert report["learnt"] == ["nose", "Mouth"]


def test_rows_without_points_are_not_learnt_from(taught, pack_path, core_path, table, tmp_path):
    other = table.with_name("rest.csv")
    other.write_text(table.read_text() + "0.png" + "," * 8 + "\n")
    rows = other.read_text().splitlines()
    other.write_text("\n".join([rows[0], *rows[2:]]) + "\n")  # the first is the one without
    path = tmp_path / "out.safetensors"
    report, seen = name_pack(pack_path, core_path, other, path, 10.0, learning=Learning(steps=1))
    assert len(seen.crops) == 10 and report["images"] == 9 and report["learnt"]


@pytest.mark.parametrize(
    ("header", "rotation"),
    [
        ({"config": {"rotation": 180.0}}, 180.0),
        ({"config": {"rotation": 0.0}}, 0.0),
        ({"config": {"rotation": 35.0}, "teacher": {"rotation": 180.0}}, 180.0),
        ({"config": {"rotation": 35.0}, "teacher": {}}, None),
        ({}, None),
    ],
)
def test_views_turn_as_the_pack_was_learnt(header, rotation):
    assert turning_as(Learning(steps=1), header).rotation == rotation
    assert turning_as(Learning(steps=1, rotation=5.0), header).rotation == 5.0


def test_a_point_that_only_neighbours_have_cannot_be_learnt(pack_path, core_path, table, tmp_path):
    lines = table.read_text().splitlines()
    ends = ["tail_x,tail_y", *["9,9"] * 5, *[","] * 5]
    other = table.with_name("tail.csv")
    other.write_text("\n".join(map(",".join, zip(lines, ends, strict=True))))
    with pytest.raises(
        UserError, match="--learn: got 'tail' in 1 images besides those from 0.png to"
    ):
        name_pack(
            pack_path, core_path, other, tmp_path / "out.safetensors", learning=Learning(steps=1)
        )


def test_nothing_is_written_when_refused(pack_path, core_path, table, tmp_path):
    lines = table.read_text().splitlines()
    rng = np.random.default_rng(0)
    rows = [",".join([line.split(",")[0], *map(str, rng.uniform(0, 50, 8))]) for line in lines[1:]]
    other = table.with_name("random.csv")
    other.write_text("\n".join([lines[0], *rows]))
    with pytest.raises(UserError, match=r"random\.csv: got points .* do not tell where they are"):
        name_pack(pack_path, core_path, other, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_what_is_followed_are_taken(pack_path, core_path, table, tmp_path):
    other = table.with_name("taken.csv")
    other.write_text(
        table.read_text().replace(f"{NAMES[0]}_x", "_p0_x").replace(f"{NAMES[0]}_y", "_p0_y")
    )
    with pytest.raises(UserError, match="got a point called '_p0', expected other names"):
        name_pack(pack_path, core_path, other, tmp_path / "out.safetensors")


@pytest.fixture
def here(tmp_path, monkeypatch, pack_path, core_path):
    """A folder with the pack and its core in runs/."""
    monkeypatch.chdir(tmp_path)
    workspace.RUNS.mkdir()
    for path, name in ((pack_path, "teapots"), (core_path, "core")):
        (workspace.RUNS / f"{name}.safetensors").write_bytes(path.read_bytes())
    return tmp_path


def first_row(path):
    with path.open(newline="") as file:
        return next(csv.DictReader(file))


def test_command(lmk, here, table, same_trace, capsys):
    assert lmk("name", "teapots", "--annotations", table, "--ridge", "1e-6") == 0
    said = capsys.readouterr()
    assert said.out.split() == [f"runs/teapots-named.{kind}" for kind in ("safetensors", "onnx")]
    assert "10 images" in said.err and "inter-ocular" in said.err and "Mouth" in said.err
    assert "verified: eager = ONNX Runtime" in said.err and "on 10 images" in said.err
    assert lmk("detect", table.parent / "0.png", "--model", "teapots-named", "--no-overlay") == 0
    row, expected = first_row(here / "runs/0-landmarks/landmarks.csv"), first_row(table)
    assert {f"{name}_{kind}" for name in NAMES for kind in ("x", "y", "score")} <= row.keys()
    for column in ("l_eye_x", "Mouth_y"):
        assert float(row[column]) == pytest.approx(float(expected[column]), abs=0.05)
    assert lmk("name", "teapots", "--annotations", table) == 2
    assert "--force" in capsys.readouterr().err


def test_command_learns(taught, lmk, here, table, same_trace, capsys):
    assert lmk("name", "teapots", "--annotations", table, "--ridge", "10", "--learn", "5m") == 0
    said = capsys.readouterr().err
    assert "by the landmarks alone" in said and "verified: " in said
    assert "learnt, with maps of their own: nose, Mouth" in said
    assert read_header(here / "runs/teapots-named.safetensors")["naming"]["learnt"]


def test_command_takes_a_folder_and_need_not_export(lmk, here, table, capsys):
    arguments = ("--annotations", table.parent, "--no-export", "--output", "mine.safetensors")
    assert lmk("name", "teapots", *arguments) == 0
    assert capsys.readouterr().out.split() == ["mine.safetensors"]
    assert not (here / "mine.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ridge", "0"), "got '0', expected auto or a number over 0"),
        (("--ridge", "strong"), "got 'strong', expected auto or a number over 0"),
        (("--learn", "0s"), "--learn: got [0.0], expected a time over 0"),
        (("--learn", "long"), "got 'long', expected a time such as 90s, 20m"),
        (("--output", "mine.onnx"), "got mine.onnx, expected a name ending in .safetensors"),
        (("--annotations", "none.csv"), "none.csv: got no such file"),
    ],
)
def test_bad_arguments(lmk, here, table, capsys, arguments, complaint):
    assert lmk("name", "teapots", "--annotations", table, *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert not (here / "runs/teapots-named.safetensors").exists()
