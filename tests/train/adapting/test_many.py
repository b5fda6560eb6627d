"""Several categories at once, on a Ray of two CPUs: each is what it would have been alone."""

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lmk.runtime.cluster import joined_ray, share_out
from lmk.runtime.errors import UserError
from lmk.runtime.model.weights import read_header
from lmk.train.adapting import many
from lmk.train.adapting.adaptation import adapt
from lmk.train.adapting.many import Request, adapt_many, print_ends
from lmk.train.config import AdaptConfig
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.loop.run import STATE_NAME, training_set

ray = pytest.importorskip("ray")


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with three sets of drawings: wings, people, and one without any image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    for name, drawn in (("wings", "butterfly"), ("people", "puppet"), ("empty", None)):
        (tmp_path / name).mkdir()
        for index, sample in enumerate(builtin(drawn, 12).samples if drawn else ()):
            Image.fromarray(sample.read()).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture
def category(here, core_path):
    """Return a function: name and what differs -> a tiny adaptation to that folder."""

    def make(name, **options) -> Request:
        config = AdaptConfig(
            output=here / "runs" / f"{name}.safetensors",
            core=core_path,
            input_size=64,
            landmarks=5,
            generator_width=8,
            threads=1,
            **{"batch": 4, "steps": 3, "report": False, "dtype": "fp32", "device": "cpu"} | options,
        )
        return Request(name, config)

    return make


def sha256(path):
    return read_header(path)["sha256"]


def alone(category, folder):
    """The pack of the same run without Ray."""
    config = replace(category.config, output=folder / f"{category.name}.safetensors")
    return adapt(config, training_set(category.data, None, "image", config))


def resumed(categories, **options):
    return [replace(c, config=replace(c.config, resume=True, **options)) for c in categories]


def test_each_is_as_alone_and_one_that_fails_stops_nobody(category, here, capsys, tmp_path):
    categories = [category("wings"), category("empty"), category("people", report=True)]
    outcomes = adapt_many(categories)
    assert [outcome.name for outcome in outcomes] == ["wings", "empty", "people"]
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"]
    for each, outcome in zip(categories, outcomes, strict=True):
        if outcome.state == "done":
            assert outcome.pack == each.config.output
            assert sha256(outcome.pack) == sha256(alone(each, tmp_path / "alone"))
            assert (outcome.steps, outcome.seconds) == (3, read_header(outcome.pack)["seconds"])
            assert "step 3/3" in each.log.read_text()
    assert "no image found" in outcomes[1].says and outcomes[1].pack is None
    assert categories[1].log.read_text().splitlines() == [outcomes[1].says]
    assert "landmarks" in outcomes[2].says and "people.html" in outcomes[2].says

    capsys.readouterr()
    Image.new("RGB", (40, 40)).save(here / "empty" / "a.png")
    Image.new("RGB", (40, 40), "red").save(here / "empty" / "b.png")
    before = categories[0].config.output.stat().st_mtime_ns
    outcomes = adapt_many(resumed(categories))
    assert [outcome.state for outcome in outcomes] == ["done before", "done", "done before"]
    assert categories[0].config.output.stat().st_mtime_ns == before
    assert "wings: begun" not in capsys.readouterr().err
    print_ends(outcomes)
    assert "done before" in capsys.readouterr().err


def test_stopped_by_ctrl_c_and_gone_on_with(category, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(many, "_POLL", 0.05)
    categories = [category(name, steps=30) for name in ("wings", "people")]
    state = categories[0].config.output.with_suffix("") / STATE_NAME

    def press_when_it_runs():
        while not state.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press_when_it_runs, daemon=True).start()
    first, second = adapt_many(categories, jobs=1)
    assert (first.state, second.state) == ("stopped", "not begun")
    assert 0 < first.steps < 30 and not read_header(first.pack)["finished"]
    assert "stopping" in capsys.readouterr().err

    (first,) = adapt_many(resumed(categories[:1]))
    assert (first.state, first.steps) == ("done", 30)
    assert sha256(first.pack) == sha256(alone(categories[0], tmp_path / "alone"))


def test_what_is_finished_but_otherwise_is_told(category):
    categories = [category("wings")]
    adapt_many(categories)
    (outcome,) = adapt_many(resumed(categories, landmarks=6))
    assert outcome.state == "failed" and "landmarks is 6" in outcome.says
    (outcome,) = adapt_many(resumed(categories, steps=4))
    assert (outcome.state, outcome.steps) == ("done", 4)


class Deadly(str):
    """Whoever unpickles this dies."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_task_that_dies_is_told(category):
    dying = replace(category("people"), data=Deadly())
    (outcome,) = adapt_many([dying])
    assert outcome.state == "failed" and outcome.says.startswith("its process died: ")


def test_bad_input(category, here):
    (here / "other").mkdir()
    wings = category("wings")
    with pytest.raises(UserError, match="--data: got wings and other/wings, both called wings"):
        adapt_many([wings, replace(wings, data="other/wings")])
    with pytest.raises(UserError, match="--device: got cuda:1 for several --data"):
        adapt_many([category("wings", device="cuda:1")])


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="ray is not installed, .*pip install ray"), joined_ray():
        pass


def test_a_cluster_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"RAY_ADDRESS: got {address}.*ray start"), joined_ray():
        pass


NODES = st.lists(
    st.fixed_dictionaries({"CPU": st.integers(1, 64)}, optional={"GPU": st.integers(1, 8)}),
    min_size=1,
    max_size=4,
)


@given(NODES, st.integers(1, 20), st.none() | st.integers(1, 20), st.booleans())
def test_every_share_fits_a_machine(nodes, tasks, jobs, use_gpus):
    share = share_out(nodes, tasks, jobs, use_gpus=use_gpus)
    assert 1 <= share.jobs <= min(tasks, jobs or tasks)
    assert any(share.cpus <= node["CPU"] and share.gpus <= node.get("GPU", 0) for node in nodes)
    if any("GPU" in node for node in nodes) and use_gpus:
        gpus = sum(node.get("GPU", 0) for node in nodes)
        assert share.jobs <= gpus * int(1 / share.gpus)
    else:
        assert share.gpus == 0


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([{"CPU": 2}], {}, (1, 2, 0)),  # few CPUs: one after the other, with all of them
        ([{"CPU": 16}], {}, (3, 5, 0)),
        ([{"CPU": 16}], {"threads": 8}, (2, 8, 0)),
        ([{"CPU": 16}], {"jobs": 2}, (2, 8, 0)),
        ([{"CPU": 16, "GPU": 1}], {}, (1, 16, 1)),
        ([{"CPU": 16, "GPU": 1}], {"jobs": 3}, (3, 5, 0.3333)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 64}], {}, (2, 8, 1)),
        ([{"CPU": 16, "GPU": 2}], {"use_gpus": False}, (3, 5, 0)),
    ],
)
def test_what_three_tasks_get(nodes, options, expected):
    share = share_out(nodes, 3, **options)
    assert (share.jobs, share.cpus, share.gpus) == expected
