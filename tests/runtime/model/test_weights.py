"""weights: a header that has changed, or says nonsense, is refused in one line."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from lmk.runtime.errors import UserError
from lmk.runtime.model import weights, workspace


def refused(path):
    """The one line that `path` is refused with."""
    with pytest.raises(UserError) as caught:
        weights.read_weights(path, "pack")
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_what_ships_is_read():
    """Its files carry no sha256 of their headers, whose values are checked."""
    paths = sorted(workspace.ZOO.glob("*.safetensors"))
    kinds = {weights.read_header(path)["kind"] for path in paths}
    assert kinds == {"core", "pack", "template"}


def test_a_changed_header_is_found(toy_pack, tmp_path):
    pack, header = toy_pack()
    header |= {"core_sha256": "", "sha256": weights.digest(pack)}
    stamped = weights.stamped(header)
    data = save(pack, metadata={weights.HEADER: json.dumps(stamped)})
    path = tmp_path / "toys.safetensors"
    path.write_bytes(data)
    assert weights.read_weights(path, "pack")[1] == stamped
    start = data.index(b"kind") - 2
    for at in range(start, data.index(b"header_sha256") + 90):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        if path.read_bytes().lower() != data.lower():
            refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_scale": float("nan")}, "'crop_scale': got nan, expected a number over 0"),
        ({"crop_scale": 0}, "'crop_scale': got 0, expected a number over 0, at most 100"),
        ({"landmark_names": ["a", "a", "b"]}, "'landmark_names': got ['a', 'a', 'b'], expected"),
        ({"category": "a\x1b[2J"}, "'category': got 'a\\x1b[2J', expected at most 200"),
        ({"method": "magic"}, "'method': got 'magic', expected one of projection, finetune"),
        ({"network": []}, "'network': got [], expected a table"),
        ({"network": {"num_landmarks": 3, "width": 17, "input_size": 64}}, "'width': got 17, exp"),
        ({"network": {"num_landmarks": 3, "width": 16}}, "network: 'input_size' is missing"),
        ({"probe": {"crops": 10**9, "seed": 0}}, "probe: 'crops': got 1000000000, expected"),
        ({"format": 3}, "got format 3, expected at most 2; upgrade lmk-toolkit"),
        ({"format": 2}, "damaged: its header does not have its sha256"),
        ({"header_sha256": "0" * 64}, "damaged: its header does not have its sha256"),
    ],
)
def test_nonsense_is_named(toy_pack, save_arrays, tmp_path, change, message):
    pack, header = toy_pack()
    path = tmp_path / "toys.safetensors"
    save_arrays(path, "pack", pack, header | {"core_sha256": ""} | change)
    assert message in refused(path)


def test_a_deep_header_costs_nobody_else(shipped, tmp_path, caplog):
    good = shipped(workspace.RUNS / "toys.safetensors")
    deep = workspace.RUNS / "deep.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, deep, metadata={"lmk": "[" * 100_000})
    shutil.copystat(good, deep)
    assert "its lmk header is not JSON (maximum recursion depth" in refused(deep)
    assert workspace.newest("pack") == good
    assert workspace.pack_names() == {"toys"}
