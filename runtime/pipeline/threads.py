"""From one thread to another: channels that hold one item, and threads that end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """The other end of a channel is gone: this stage ends without an error of its own."""


class Channel(Generic[T]):
    """Hands items from one thread to another; `put` waits while one lies there already.

    changed: shared by channels that one thread waits for together. latest: `put` never waits but
    takes the place of what lies there, which counts as dropped.
    """

    def __init__(self, changed: threading.Condition | None = None, latest: bool = False) -> None:
        self._items: list[T] = []
        self._changed = changed or threading.Condition()
        self._latest = latest
        self._stopped = False
        self.dropped = 0

    @property
    def ready(self) -> bool:
        """Whether `get` would return, or raise, at once."""
        return self._stopped or bool(self._items)

    def put(self, item: T, wait: bool = False) -> None:
        """Hand over `item`; with `wait` it drops nothing. Raises Stopped."""
        with self._changed:
            if self._latest and not wait:
                self.dropped += len(self._items)
                self._items.clear()
            self._changed.wait_for(lambda: self._stopped or not self._items)
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T:
        """Wait for an item. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready)
            if self._stopped:
                raise Stopped
            item = self._items.pop()
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        """Let both ends raise Stopped from now on."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class Thread(threading.Thread):
    """A thread whose end can be waited for again after Ctrl-C broke into the wait.

    Before Python 3.13 Thread.join, broken into, takes the thread for ended though it still runs.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, daemon=True)
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether the work has ended."""
        return self._done.is_set()

    def run(self) -> None:
        """See threading.Thread."""
        try:
            super().run()
        finally:
            self._done.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; at once if the thread was never started."""
        if self.ident is not None:
            self._done.wait(timeout)
            super().join(timeout)
