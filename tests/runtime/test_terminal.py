"""What the user reads: file names as they are, and how a command ended."""

import io
import os
import signal
import subprocess
import sys

import click
import pytest
from rich.console import Console

from lmk.cli import cli, main
from lmk.runtime import terminal
from lmk.runtime.terminal import CommaList

ODD = "m/[/b] [red]:cat:"


def test_progress_on_a_terminal_takes_any_name(monkeypatch):
    screen = io.StringIO()
    screen_console = Console(file=screen, force_terminal=True, width=120, markup=False, emoji=False)
    monkeypatch.setattr(terminal, "console", lambda: screen_console)
    with terminal.progress(f"detecting in {ODD}", 3) as advance:
        advance(3, None)
    assert ODD in screen.getvalue()


def test_progress_without_a_terminal_takes_any_name(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_LINE_SECONDS", -1.0)
    with terminal.progress(ODD) as advance:
        advance(1, None)
    assert capsys.readouterr().err.startswith(f"{ODD}: 1 of ?")


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_clock(seconds, words):
    assert terminal.clock(seconds) == words


def test_time_left_counts_what_this_run_does(monkeypatch, capsys):
    clock = iter((100.0, 120.0))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.progress("x", 1000, before=990) as advance:
        advance(995, None)
    assert "x: 995 of 1000, 0.2 a second, 0:20 left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "interrupted; what was finished is kept"),
        (KeyboardInterrupt("interrupted; --resume goes on"), "interrupted; --resume goes on"),
    ],
)
def test_ctrl_c(error, line, capsys, monkeypatch):
    @click.command("wait")
    def wait():
        raise error

    monkeypatch.setitem(cli.commands, "wait", wait)
    with pytest.raises(SystemExit) as end:
        main(["wait"])
    assert end.value.code == 130 and capsys.readouterr().err.strip() == f"lmk: {line}"


_WAITS = """
import signal, sys, time
import click
from lmk.cli import cli, main

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
    with terminal.ends_in_order():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_what_is_to_be_done_takes_the_place_of_ctrl_c(on_ctrl_c):
    done = []
    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        with terminal.ends_in_order() as came, terminal.on_stop(lambda: done.append("stop")):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # the next ends it
        assert done == ["stop"] * (1 if on_ctrl_c is signal.SIG_IGN else 2)
        assert came == [signal.SIGTERM] and signal.getsignal(signal.SIGINT) is on_ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_an_encoding_does_not_have_is_escaped():
    code = "from lmk.runtime import terminal; terminal.escape_output()\n"
    code += "terminal.output().print('größe\\udcff'); terminal.console().print('größe')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.stdout, done.stderr) == (rb"gr\xf6\xdfe\udcff" + b"\n", rb"gr\xf6\xdfe" + b"\n")


def test_no_password_with_debug_or_in_the_log(monkeypatch, capsys):
    import logging

    @click.command("leak")
    def leak():
        logging.getLogger("lmk").warning("cannot open rtsp://me:secret@host/1")
        raise RuntimeError("no 'http://me:se/cret@host/1'")

    monkeypatch.setitem(cli.commands, "leak", leak)
    monkeypatch.setattr(logging.root, "handlers", [])
    with pytest.raises(SystemExit):
        main(["--debug", "leak"])
    said = capsys.readouterr().err
    assert "lmk: cannot open rtsp://host/1" in said and "no 'http://host/1'" in said
    assert "secret" not in said and "cret@" not in said


def test_an_empty_path_is_none(capsys):
    with pytest.raises(SystemExit) as end:
        main(["info", ""])
    assert end.value.code == 2 and "got an empty name" in capsys.readouterr().err


def test_each_entry_is_made_once():
    assert CommaList().convert(" a, b,a", None, None) == ("a", "b")
    assert CommaList(int).convert("8,1", None, None) == (8, 1)


@pytest.mark.parametrize(
    ("kind", "text", "noun"), [(str, "a,,b", "names"), (str, "", "names"), (int, "1,x", "numbers")]
)
def test_what_is_no_list_is_refused(kind, text, noun):
    with pytest.raises(click.BadParameter, match=f"got '{text}', expected {noun} with commas"):
        CommaList(kind).convert(text, None, None)
