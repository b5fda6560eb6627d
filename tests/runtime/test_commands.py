"""What `lmk info` says: short for reading, whole as JSON."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmk.runtime import commands
from lmk.runtime.errors import UserError


@pytest.fixture
def pack(tmp_path):
    header = {
        "kind": "run",
        "category": "[/b]",
        "seconds": 2701.8123,
        "config": {"lr": 0.00123456, "steps": None, "resume": False, "size": [1, 2]},
        "history": [{"step": 1, "pck": 0.1}, {"step": 2, "pck": 0.123456789}],
        "drift": {"crops": 32, "max_px": 5.4321e-05, "pairs": {"a-b": {"max_px": 1.0}}},
    }
    path = tmp_path / "p.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path, metadata={"lmk": json.dumps(header)})
    return path, header


def test_info_is_short(pack, capsys):
    commands.print_info(pack[0])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines == {
        "kind": "run",
        "category": "[/b]",
        "seconds": "2702",
        "config": "lr 0.001235, steps null, resume false, size (1, 2)",
        "history": "2 entries, the last: step 2, pck 0.1235",
        "drift": "max 5.4e-05 px over 32 crops",
        "unsealed": "written before 0.2: a change of what it says cannot be told",
    }


def test_info_as_json_is_whole(pack, model_path, capsys):
    commands.print_info(pack[0], as_json=True)
    assert json.loads(capsys.readouterr().out) == pack[1]
    commands.print_info(model_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["landmark_names"] == ["red", "green", "blue"]


def test_info_of_a_model(model_path, capsys):
    commands.print_info(model_path)
    assert "landmark_names   red, green, blue\n" in capsys.readouterr().out


def test_info_of_a_folder_says_so(tmp_path):
    with pytest.raises(UserError, match=r"got a folder, expected a \.safetensors"):
        commands.print_info(tmp_path)
