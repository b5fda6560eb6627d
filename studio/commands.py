"""`lmk studio`: what was named -> a server of pages on this machine, and its address."""

from __future__ import annotations

import click

from lmk.runtime.errors import UserError, install_line


@click.command("studio")
@click.argument("what", nargs=-1, metavar="[FILM|FOLDER|PACK]...")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: 8765, or the next that is free."
)
@click.option("--no-browser", is_flag=True, help="Print the address and open no browser.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Whose address to listen on: 0.0.0.0 lets other machines in, by their tokens.",
)
@click.option(
    "--annotator",
    "annotators",
    multiple=True,
    metavar="NAME",
    help="Also print an address for NAME, who may name points and start nothing; may be repeated.",
)
def studio_command(
    what: tuple[str, ...],
    port: int | None,
    no_browser: bool,
    host: str,
    annotators: tuple[str, ...],
) -> None:
    """Look, judge, name and correct in the browser.

    Opens films, folders of images and packs; without any, this folder. All that it does is a
    command too, and it writes the same files, into runs/.
    """
    try:
        from lmk.studio.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn", "jinja2"):
            raise
        raise UserError(
            f"{error.name}: not installed, needed for the pages; {install_line('studio')}"
        ) from None
    serve(what, host, port, not no_browser, annotators)
