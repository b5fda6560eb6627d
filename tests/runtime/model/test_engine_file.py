"""engine_file: what is written comes back; every file that is none is told apart in one line."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmk.runtime import commands
from lmk.runtime.errors import UserError
from lmk.runtime.model.contract import Contract
from lmk.runtime.model.engine_file import (
    MAGIC,
    VERSION,
    EngineInfo,
    Recipe,
    read_engine,
    read_info,
    sha256,
    write_engine,
)

PLAN = b"vtrt" + bytes(range(256))
RECIPE = Recipe(
    onnx_sha256="o" * 64,
    precision="fp16",
    library="tensorrt_rtx",
    library_version="1.7.1",
    gpu="",
    targets=("7.5", "8.6"),
    batches=(1, 8),
    refittable=False,
    level=3,
    workspace_mib=None,
)


def info_of(plan, recipe=RECIPE):
    contract = Contract("tea pots ☕", 2, 64, "fp16", "c" * 64, "p" * 64, ("lid", "spout"), 1.25)
    return EngineInfo(contract, recipe, {"fp16": 9}, {"fp16": 4}, {}, 1.5, len(plan), sha256(plan))


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "pots.engine"
    write_engine(path, info_of(PLAN), PLAN)
    return path


def refused(path):
    """The one line that both readers refuse `path` with."""
    with pytest.raises(UserError) as caught:
        read_info(path)
    with pytest.raises(UserError) as again:
        read_engine(path)
    assert str(caught.value) == str(again.value)
    return str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.binary(max_size=300), batches=st.sets(st.integers(1, 512), min_size=1))
def test_what_is_written_comes_back(tmp_path, plan, batches):
    info = info_of(plan, replace(RECIPE, batches=tuple(sorted(batches)), workspace_mib=64))
    write_engine(tmp_path / "x.engine", info, plan)
    assert read_engine(tmp_path / "x.engine") == (info, plan)
    assert read_info(tmp_path / "x.engine") == info
    assert [path.name for path in tmp_path.iterdir()] == ["x.engine"]


@pytest.mark.parametrize("part", [0.0, 0.002, 0.01, 0.3, 0.8, 0.999])
def test_truncated(engine, part):
    data = engine.read_bytes()
    engine.write_bytes(data[: int(part * len(data))])
    assert "pots.engine: truncated: " in refused(engine)


def test_changed_plan(engine):
    data = bytearray(engine.read_bytes())
    data[-3] ^= 1
    engine.write_bytes(data)
    assert read_info(engine) == info_of(PLAN)  # only the header is read
    with pytest.raises(UserError, match=r"damaged: the plan's sha256 .* `--engine rtx`"):
        read_engine(engine)


@pytest.mark.parametrize("header", [b"{]", b"{}", b"[]", b"\xff\xff", b"[" * 100_000])
def test_damaged_header(engine, header):
    put_header(engine, header)
    assert "pots.engine: damaged: its header" in refused(engine)


def put_header(path, header, plan=b"", version=1):
    """Write an engine of layout 1, whose header has no sha256."""
    numbers = version.to_bytes(4, "little") + len(header).to_bytes(4, "little")
    path.write_bytes(MAGIC + numbers + header + plan)


def header_of(path):
    """The header of an engine of this layout, as JSON."""
    data = path.read_bytes()
    return json.loads(data[48 : 48 + int.from_bytes(data[12:16], "little")])


def test_layout_1_is_read(engine):
    put_header(engine, json.dumps(header_of(engine)).encode(), PLAN)
    assert read_engine(engine) == (info_of(PLAN), PLAN)


def test_every_changed_byte_of_the_header_is_found(engine):
    data = engine.read_bytes()
    for at in range(len(data) - len(PLAN)):
        engine.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refused(engine)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("library", "antigravity"),
        ("library", ["tensorrt"]),
        ("batches", [8, 8]),
        ("batches", []),
        ("targets", ["8"]),
        ("level", 9),
        ("workspace_mib", -1),
        ("onnx_sha256", 1),
    ],
)
def test_nonsense_in_the_recipe_is_named(engine, name, value):
    """Of whoever writes the sha256 of such a header too: a library would be imported."""
    header = header_of(engine)
    header["recipe"][name] = value
    put_header(engine, json.dumps(header).encode(), PLAN)
    assert f"damaged: its header: '{name}': got {value!r}, expected" in refused(engine)


def test_other_files(engine, tmp_path):
    data, header = engine.read_bytes(), json.dumps(header_of(engine))
    layout = (VERSION + 1).to_bytes(4, "little")
    for content, told in (
        (data + b"more", "got 4 bytes after the engine's end"),
        (
            MAGIC + layout + data[12:],
            f"got engine layout {VERSION + 1}, expected at most {VERSION}; upgrade",
        ),
        *((magic + bytes(60), "got a bare TensorRT plan") for magic in (b"ftrt", b"ptrt", b"vtrt")),
        (b"\x08\x08:7 an ONNX model", "got another kind of file"),
    ):
        engine.write_bytes(content)
        assert told in refused(engine)
    put_header(engine, header.replace("lmk.category", "lmk.cat_gory").encode(), PLAN)
    assert "metadata key 'lmk.category' is missing" in refused(engine)
    assert "no such file" in refused(tmp_path / "none.engine")
    assert "is a folder" in refused(tmp_path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "compute capability 7.5, 8.6"),
        ({"targets": ()}, "compute capability 8.0 and newer"),
        ({"targets": (), "precision": "fp8"}, "compute capability 8.9 and newer"),
        ({"targets": ("9.0",), "gpu": "NVIDIA H200"}, "NVIDIA H200 (compute capability 9.0)"),
    ],
)
def test_place_in_words(changes, words):
    assert replace(RECIPE, **changes).place == words


def test_info_prints_it(engine, capsys):
    commands.print_info(engine)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["category"] == "tea pots ☕" and lines["landmark_names"] == "lid, spout"
    assert lines["targets"] == "7.5, 8.6" and lines["layers"] == "fp16 9"
    assert lines["runs_on"] == "compute capability 7.5, 8.6" and lines["gpu"] == "-"
    commands.print_info(engine, as_json=True)
    assert json.loads(capsys.readouterr().out)["plan_bytes"] == len(PLAN)
