"""Weight files: whole or absent, and a damaged or foreign one is told in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmk.runtime.errors import UserError
from lmk.runtime.model.weights import HEADER, stamped
from lmk.train.network import checkpoint
from lmk.train.network.checkpoint import digest, halve, load_core, read_header, save, save_core


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message and message
    return message


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


def test_channels_last_is_only_a_layout(core, saved, tmp_path):
    core.to(memory_format=torch.channels_last)
    save_core(tmp_path / "b.safetensors", core, {})
    assert read_header(tmp_path / "b.safetensors")["sha256"] == read_header(saved)["sha256"]
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(
        load_core(tmp_path / "b.safetensors")[0](images), load_core(saved)[0](images)
    )


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


def test_header_does_not_change_the_sha256(core, saved, tmp_path):
    save_core(tmp_path / "b.safetensors", core, {"data": "shoes"})
    assert read_header(tmp_path / "b.safetensors")["sha256"] == read_header(saved)["sha256"]


def test_halved_core_still_loads(core, saved, tmp_path):
    small = tmp_path / "half.safetensors"
    halve(saved, small)
    again, header = load_core(small)
    assert small.stat().st_size < 0.75 * saved.stat().st_size
    assert header["sha256"] != read_header(saved)["sha256"] and header["data"] == "teapots"
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(again(images), core(images), atol=1e-2, rtol=1e-2)
    assert load_file(small)["bn_first.running_var"].dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="truncated or not safetensors") as caught:
        load_core(saved)
    assert str(saved) in one_line(caught)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"{}", b"\xff" * 64])
def test_not_safetensors(tmp_path, content):
    path = tmp_path / "core.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated or not safetensors") as caught:
        load_core(path)
    one_line(caught)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_core(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError) as caught:
        load_core(tmp_path)
    one_line(caught)


def test_somebody_elses_safetensors(tmp_path):
    path = tmp_path / "vgg.safetensors"
    save_file({"conv1_1.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="without an lmk header") as caught:
        load_core(path)
    one_line(caught)


def test_another_kind_names_both(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, "run", {"a": torch.zeros(2)}, {})
    with pytest.raises(UserError, match="got the state of an unfinished run, expe") as caught:
        load_core(path)
    one_line(caught)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(saved, value):
    rewrite(saved, lambda tensors: tensors["conv_last.bias"].__setitem__(0, value))
    with pytest.raises(UserError, match=r"'conv_last\.bias' holds NaN or infinity") as caught:
        load_core(saved)
    one_line(caught)


def test_values_that_changed_on_the_way(saved):
    data = bytearray(saved.read_bytes())
    data[-5] ^= 1
    saved.write_bytes(data)
    with pytest.raises(UserError, match="do not have its sha256") as caught:
        load_core(saved)
    one_line(caught)


def test_a_missing_and_an_unexpected_tensor(saved):
    rewrite(saved, lambda tensors: tensors.pop("head.bias"))
    with pytest.raises(UserError, match=r"'head\.bias' is missing") as caught:
        load_core(saved)
    one_line(caught)
    rewrite(
        saved, lambda tensors: tensors.update({"head.bias": torch.zeros(14), "a": torch.ones(1)})
    )
    with pytest.raises(UserError, match="'a' is missing or unexpected"):
        load_core(saved)


def test_a_tensor_of_another_shape(saved):
    rewrite(saved, lambda tensors: tensors.update({"head.bias": torch.zeros(15)}))
    with pytest.raises(UserError, match=r"head\.bias.*15.*14") as caught:
        load_core(saved)
    one_line(caught)


def test_a_full_disk_keeps_what_was_there(core, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmk.runtime.files.os.fsync", full)
    with pytest.raises(UserError, match="disk is full") as caught:
        save_core(saved, core, {"data": "new"})
    one_line(caught)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["core.safetensors"]


def test_versions_of_what_is_installed():
    found = checkpoint.versions("torch", "there-is-no-such-thing")
    assert found.keys() == {"torch"} and torch.__version__.startswith(found["torch"])
