"""The command line's door: the signals first, then all that is needed to run a command."""

from __future__ import annotations

import signal
import sys

from lmk.runtime.signals import nothing_begun


def main(arguments: list[str] | None = None) -> None:
    """Run `lmk ARGUMENTS`, by default those of this program; ends in SystemExit.

    See `lmk.commands.run`.
    """
    with nothing_begun():
        from lmk.commands import run
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # a second one, when all was told
        sys.exit(128 + signal.SIGINT)
    finally:
        if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # only Python's own end is left


if __name__ == "__main__":
    main()
