"""What all tests share."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works():
    """A suite that a script started in the background inherits SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def few_drawings():
    """200 drawings of a built-in category instead of 2,000."""
    from lmk.train.datasets import find

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(find, "BUILTIN_COUNT", 200)
        yield
