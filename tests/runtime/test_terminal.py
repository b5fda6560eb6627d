"""What the user reads: file names as they are, and how a command ended."""

import io
import os
import signal
import subprocess
import sys

import click
import pytest
from rich.console import Console

from lmk.commands import cli
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
def test_ctrl_c(lmk, error, line, capsys, monkeypatch):
    @click.command("wait")
    def wait():
        raise error

    monkeypatch.setitem(cli.commands, "wait", wait)
    assert lmk("wait") == 130 and capsys.readouterr().err.strip() == f"lmk: {line}"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_out_as_another_error(lmk, sent, capsys, monkeypatch):
    @click.command("load")
    def load():
        try:
            signal.raise_signal(sent)
        except KeyboardInterrupt:  # as where compiled code is imported
            raise ImportError("initialization failed") from None

    monkeypatch.setitem(cli.commands, "load", load)
    assert lmk("load") == 128 + sent
    assert capsys.readouterr().err == "lmk: interrupted; what was finished is kept\n"


def test_what_an_encoding_does_not_have_is_escaped():
    code = "from lmk.runtime import terminal; terminal.escape_output()\n"
    code += "terminal.output().print('größe\\udcff'); terminal.console().print('größe')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.stdout, done.stderr) == (rb"gr\xf6\xdfe\udcff" + b"\n", rb"gr\xf6\xdfe" + b"\n")


def test_no_password_with_debug_or_in_the_log(lmk, monkeypatch, capsys):
    import logging

    @click.command("leak")
    def leak():
        logging.getLogger("lmk").warning("cannot open rtsp://me:secret@host/1")
        raise RuntimeError("no 'http://me:se/cret@host/1'")

    monkeypatch.setitem(cli.commands, "leak", leak)
    monkeypatch.setattr(logging.root, "handlers", [])
    lmk("--debug", "leak")
    said = capsys.readouterr().err
    assert "lmk: cannot open rtsp://host/1" in said and "no 'http://host/1'" in said
    assert "secret" not in said and "cret@" not in said


def test_an_empty_path_is_none(lmk, capsys):
    assert lmk("info", "") == 2 and "got an empty name" in capsys.readouterr().err


def test_each_entry_is_made_once():
    assert CommaList().convert(" a, b,a", None, None) == ("a", "b")
    assert CommaList(int).convert("8,1", None, None) == (8, 1)


@pytest.mark.parametrize(
    ("kind", "text", "noun"), [(str, "a,,b", "names"), (str, "", "names"), (int, "1,x", "numbers")]
)
def test_what_is_no_list_is_refused(kind, text, noun):
    with pytest.raises(click.BadParameter, match=f"got '{text}', expected {noun} with commas"):
        CommaList(kind).convert(text, None, None)
