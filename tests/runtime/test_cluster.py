"""Of Ray, joined: what tests of its users (detect, adapt) do not see."""

import signal
import sys
import types

from lmk.runtime.cluster import joined_ray


def test_sigterm_stays_the_program_s(monkeypatch):
    def init(**_):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))

    fake = types.SimpleNamespace(init=init, shutdown=lambda: None, is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", fake)
    before = signal.getsignal(signal.SIGTERM)
    with joined_ray():
        assert signal.getsignal(signal.SIGTERM) is before
