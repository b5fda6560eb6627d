"""Weight files: whole or absent, and a damaged or foreign one is told in one line."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmk.runtime.errors import UserError
from lmk.runtime.model.weights import HEADER, stamped
from lmk.train.network import checkpoint
from lmk.train.network.checkpoint import digest, halve, load_core, read_header, save, save_core


def rewrite(path, edit):
    """Change the tensors of a file and keep its header."""
    tensors, header = load_file(path), read_header(path)
    edit(tensors)
    header["sha256"] = checkpoint.digest(tensors)
    save_file(tensors, path, metadata={HEADER: json.dumps(stamped(header))})


@pytest.fixture
def saved(core, tmp_path):
    path = tmp_path / "core.safetensors"
    save_core(path, core, {"data": "teapots"})
    return path


def test_core_round_trip(core, saved):
    again, header = load_core(saved)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images), core(images))
    assert again.config == core.config and not again.training
    assert (header["kind"], header["data"]) == ("core", "teapots")
    assert len(header["sha256"]) == 64 and "torch" in header["versions"]


def test_neither_layout_nor_header_changes_the_sha256(core, saved, tmp_path):
    core.to(memory_format=torch.channels_last)
    other = tmp_path / "b.safetensors"
    save_core(other, core, {"data": "shoes"})
    assert read_header(other)["sha256"] == read_header(saved)["sha256"]
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(load_core(other)[0](images), load_core(saved)[0](images))


def test_digest_is_the_identity_of_the_weights():
    tensors = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    others = [
        {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)},
        {"a": torch.arange(6.0).double(), "b": torch.zeros(2)},
        {"a": torch.arange(6.0) + 1e-6, "b": torch.zeros(2)},
        {"c": torch.arange(6.0), "b": torch.zeros(2)},
    ]
    same = {"b": torch.zeros(2), "a": torch.arange(12.0)[::2] / 2}
    assert digest(same) == digest(tensors)
    assert len({digest(t) for t in (tensors, *others)}) == 5


def test_halved_core_still_loads(core, saved, tmp_path):
    small = tmp_path / "half.safetensors"
    halve(saved, small)
    again, header = load_core(small)
    assert small.stat().st_size < 0.75 * saved.stat().st_size
    assert header["sha256"] != read_header(saved)["sha256"] and header["data"] == "teapots"
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again(images), core(images), atol=1e-2, rtol=1e-2)
    assert load_file(small)["bn_first.running_var"].dtype == torch.float32


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        *((lambda d, s=s: d[: int(len(d) * s)], "truncated or not") for s in (0, 0.01, 0.5, 0.999)),
        *((lambda d, c=c: c, "truncated or not") for c in (b"\x89PNG\r\n", b"{}", b"\xff" * 64)),
        (lambda d: d[:-5] + bytes([d[-5] ^ 1]) + d[-4:], "do not have its sha256"),
    ],
)
def test_a_file_that_is_damaged_or_something_else(saved, damage, complaint):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(UserError, match=f"{saved}.*{complaint}"):
        load_core(saved)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda t: t["conv_last.bias"].fill_(math.nan), r"'conv_last\.bias' holds NaN or infinity"),
        (lambda t: t["conv_last.bias"].fill_(math.inf), r"'conv_last\.bias' holds NaN or infinity"),
        (lambda t: t.pop("head.bias"), r"'head\.bias' is missing"),
        (lambda t: t.update(a=torch.ones(1)), "'a' is missing or unexpected"),
        (lambda t: t.update({"head.bias": torch.zeros(15)}), r"head\.bias.*15.*14"),
    ],
)
def test_weights_of_no_use(saved, edit, complaint):
    rewrite(saved, edit)
    with pytest.raises(UserError, match=complaint):
        load_core(saved)


def test_what_is_no_core(tmp_path):
    for path, complaint in ((tmp_path / "nothing", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=complaint):
            load_core(path)
    path = tmp_path / "x.safetensors"
    save_file({"conv1_1.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="without an lmk header"):
        load_core(path)
    save(path, "run", {"a": torch.zeros(2)}, {})
    with pytest.raises(UserError, match="got the state of an unfinished run, expected a core"):
        load_core(path)


def test_a_full_disk_keeps_what_was_there(core, saved, full_disk):
    before = saved.read_bytes()
    with full_disk(), pytest.raises(UserError, match="disk is full"):
        save_core(saved, core, {"data": "new"})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["core.safetensors"]


def test_versions_of_what_is_installed():
    found = checkpoint.versions("torch", "there-is-no-such-thing")
    assert found.keys() == {"torch"} and torch.__version__.startswith(found["torch"])
