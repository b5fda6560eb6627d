"""What all tests share."""

from __future__ import annotations

import contextlib
import errno
import gc
import html
import io
import json
import os
import shutil
import signal
import subprocess
import threading

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from lmk.cli import main
from lmk.runtime.cluster import SETTINGS, sigterm_kept
from lmk.runtime.errors import UserError

# Sums are taken in one order, here and in the processes that tests start, and two that test side by
# side do not wait for each other's threads. PyTorch, which reads it, is imported later.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `make test` gives the same answer every time; `make explore` looks for new examples, and what it
# finds is kept as an @example of the test.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("ci")

# A frame is as wide as it is told; Chromium's own window is never narrower than 500 pixels.
_FRAMES = """
<style>body {{ margin: 0; display: flex }} iframe {{ border: 0; flex: none }}</style>{frames}
<pre id="result"></pre><script>
onload = () => result.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(
  ({{contentDocument: page, contentWindow: view}}) => ({{
    width: view.innerWidth,
    content: page.documentElement.scrollWidth,
    images: [...page.images].map(i => [i.naturalWidth, i.clientWidth, i.alt]),
    smallest: Math.min(...[...page.querySelectorAll("main p, dd, dt, figcaption, span.word")]
      .map(e => parseFloat(view.getComputedStyle(e).fontSize))),
    outside: [...page.querySelectorAll("main *")].filter(e => !e.closest("svg") &&
      e.getBoundingClientRect().right > view.innerWidth + 0.5).map(e => e.outerHTML.slice(0, 60)),
  }})))
</script>"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files go to one process each, and all of a folder that shares what takes half a minute."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            folder = "tests/benchmarks/paper"
            return folder if file.startswith(folder) else file

    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def browser(tmp_path):
    """Return a function that shows a page in Chromium, in frames of the given widths in pixels.

    It gives what was measured in each frame, and the screenshot (H,W,3); it fails when the page
    tries to fetch what its own policy forbids.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")

    def run(*arguments):
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Refused to" not in done.stderr and "Content Security" not in done.stderr
        return done.stdout

    def show(page, *widths):
        frames = "".join(
            f'<iframe width={width} height=3000 srcdoc="{html.escape(page)}"></iframe>'
            for width in widths
        )
        probe = tmp_path / "probe.html"
        probe.write_text(_FRAMES.format(frames=frames))
        dumped = run("--dump-dom", probe.as_uri())
        found = json.loads(html.unescape(dumped.split('id="result">')[1].split("</pre>")[0]))
        assert [one["width"] for one in found] == list(widths)
        screen = tmp_path / "screen.png"
        run(f"--screenshot={screen}", f"--window-size={sum(widths)},1200", probe.as_uri())
        return found, np.asarray(Image.open(io.BytesIO(screen.read_bytes())).convert("RGB"))

    return show


@pytest.fixture
def started(monkeypatch):
    """The threads that the test, and those that it started, have started: all must end with it."""
    threads, start = [], threading.Thread.start

    def noted(self):
        if threading.current_thread() in (threading.main_thread(), *threads):
            threads.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noted)
    yield threads
    gc.collect()
    alive = [thread for thread in threads if thread.is_alive()]
    assert not alive


@pytest.fixture(autouse=True)
def signals_as_python_starts():
    """Whatever nohup or a shell's background has set, or a library in an earlier test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def errors_are_one_line():
    """Whatever the test raises to be read by a user: it is printed after `lmk: `."""
    messages, init = [], UserError.__init__

    def noted(self, message):
        init(self, message)
        messages.append(str(self))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UserError, "__init__", noted)
        yield
    assert [message for message in messages if "\n" in message] == []


@pytest.fixture(scope="session")
def lmk():
    """Return a function that runs a command line and gives its exit code."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0)

    return run


@pytest.fixture(scope="session")
def full_disk():
    """Return a context in which no file can be written to its end."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lmk.runtime.files.os.fsync", full)
            yield

    return patched


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """Return a function after whose call a SIGINT reaches the process in that step of any run."""
    from lmk.train.loop.run import TrainingRun

    log = TrainingRun.log

    def at(step):
        def interrupting(self, *values):
            log(self, *values)
            if self.step == step:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(TrainingRun, "log", interrupting)

    return at


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two CPUs: it takes seconds to start, so there is one for all tests of a file.

    Ray gives up after 30 seconds, which a busy machine may need: it is then started again.
    """
    ray = pytest.importorskip("ray")
    options = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in SETTINGS.items():
            patched.setenv(name, value)
        for left in (2, 1, 0):
            try:
                with sigterm_kept():
                    ray.init("local", log_to_driver=False, logging_level="ERROR", **options)
                break
            except Exception as error:
                ray.shutdown()
                if left == 0 or "timed out during startup" not in str(error):
                    raise
        yield
        ray.shutdown()


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings(tmp_path_factory):
    """Nothing that the user has set or cached: no cluster, no torchrun, and a cache that is empty
    at first. Processes that test side by side share it: what takes seconds is made once.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patched:
        for name in set(os.environ) - {"LMK_DATA"}:
            if name.startswith("LMK_") or name in (
                "RAY_ADDRESS",
                "RANK",
                "LOCAL_RANK",
                "WORLD_SIZE",
            ):
                patched.delenv(name)
        patched.setenv("LMK_CACHE", str(folder / "cache"))
        patched.setenv("LMK_DEVICE", "cpu")  # no test but those of `auto` measures what is quick
        yield


@pytest.fixture(scope="session", autouse=True)
def few_drawings():
    """200 drawings of a built-in category instead of 2,000."""
    from lmk.train.datasets import find

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(find, "BUILTIN_COUNT", 200)
        yield
