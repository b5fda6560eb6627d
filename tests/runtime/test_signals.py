"""How a program ends by a signal: in order, at once the second time and where nothing is begun."""

import signal
import subprocess
import sys

import pytest

from lmk.cli import main
from lmk.runtime import signals

_WAITS = """
import signal, sys, time
import click
from lmk.cli import main
from lmk.commands import cli

@click.command("wait")
def wait():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopping", flush=True)
        time.sleep(60 * float(sys.argv[1]))
        raise

cli.add_command(wait)
main(["wait"])
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("again", [False, True])
def test_signals_that_end_a_program_do_so_in_order_and_then_at_once(name, again):
    number = getattr(signal, name)
    with subprocess.Popen(
        [sys.executable, "-c", _WAITS, str(int(again))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        if again:
            process.send_signal(number)
        _, said = process.communicate(timeout=30)
    if again:
        assert (process.returncode, said) == (-number, "")
    else:
        assert process.returncode == 128 + number
        assert said.strip() == "lmk: interrupted; what was finished is kept"


def test_signals_are_the_program_s_again_after_a_command():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with signals.ends_in_order():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_what_is_to_be_done_takes_the_place_of_ctrl_c(on_ctrl_c):
    done = []
    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        with signals.ends_in_order() as came, signals.on_stop(done.append):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # the next ends it
        ignored = on_ctrl_c is signal.SIG_IGN
        assert done == [signal.SIGTERM] if ignored else [signal.SIGINT, signal.SIGTERM]
        assert came == [signal.SIGTERM] and signal.getsignal(signal.SIGINT) is on_ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)


_LOADS = """
import sys, signal
name, number = sys.argv[1], int(sys.argv[2])
sys.argv[1:] = ["detect", "--help"]

class Finder:
    def find_spec(self, asked, path=None, target=None):
        if asked == name:
            signal.raise_signal(number)

from lmk.cli import main
sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("module", ["lmk.commands", "numpy.linalg", "lmk.runtime.detect.command"])
def test_while_modules_are_loaded_a_signal_ends_the_program_with_a_line(module, sent):
    number = int(getattr(signal, sent))
    words = [sys.executable, "-c", _LOADS, module, str(number)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + number
    assert (done.stdout, done.stderr) == ("", "lmk: interrupted; nothing was begun\n")


def test_ctrl_c_after_a_command_leaves_no_traceback():
    code = """
import atexit, signal, sys
from lmk.cli import main
atexit.register(signal.raise_signal, signal.SIGINT)
sys.argv[1:] = ["--version"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_ctrl_c_at_the_very_end_of_a_command_leaves_no_traceback(monkeypatch):
    def late(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("lmk.commands.run", late)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 128 + signal.SIGINT
