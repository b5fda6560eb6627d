"""What ends a command is told in one line."""

import click
import pytest

from lmk.cli import cli, main


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
