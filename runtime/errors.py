"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend.

    The message is one line: `<what>: got …, expected …; <what to do>`. The command line prints it
    after `lmk: ` without a traceback and exits with 2.
    """
