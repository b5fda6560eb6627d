"""SIGINT, SIGTERM and SIGHUP -> an end in order, or at once where nothing is begun.

Weighs next to nothing, so that it is there before what weighs more is loaded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_actions: list[Callable[[int], None]] = []  # of `on_stop`, the innermost last


@contextmanager
def ends_in_order() -> Iterator[list[int]]:
    """Let the signals that end a program, SIGTERM and SIGHUP, do what Ctrl-C does, once.

    The next of them ends it at once. One that is ignored, as by nohup, stays so. Yields a list that
    will hold the number of the signal that came, Ctrl-C too. Does nothing outside the main thread.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
        if number != signal.SIGTERM:  # the terminal is gone: nothing can be told
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (1, 2):
                if os.isatty(descriptor):
                    os.dup2(nowhere, descriptor)
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if _actions:
            _actions[-1](number)
        elif callable(on_ctrl_c):
            on_ctrl_c(number, frame)
        else:  # ignored, as of a program in a shell's background
            raise KeyboardInterrupt

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    for number in ours:
        signal.signal(number, end)
    if is_usual := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def on_stop(action: Callable[[int], None]) -> Iterator[None]:
    """Call `action` with the number of Ctrl-C, SIGTERM or SIGHUP instead of KeyboardInterrupt.

    As in `ends_in_order`, one that is ignored stays so, and after SIGTERM or SIGHUP the next ends
    the program at once. Does nothing outside the main thread, which alone may say so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    with ends_in_order():
        _actions.append(action)
        if before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda number, frame: action(number))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            _actions.pop()


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Where there is nothing to keep: Ctrl-C, SIGTERM and SIGHUP end the program with one line.

    So modules are loaded, which an exception from anywhere leaves half made, or is lost in. Does
    nothing outside the main thread.
    """

    def leave(number: int) -> None:
        with suppress(OSError):
            os.write(2, b"lmk: interrupted; nothing was begun\n")
        os._exit(128 + number)

    with on_stop(leave):
        yield
