"""Temporary handlers for the signals that end a process, so that it can clean up first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Sent by Ctrl-C, kill, a closed terminal and Ctrl-\. Windows has only the first two.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


@contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the number of each such signal, instead of ending the process.

    SIGHUP stays ignored if it was ignored before, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return
    numbers = {name: getattr(signal, name) for name in _NAMES if hasattr(signal, name)}
    before = {
        number: signal.signal(number, lambda number, _: handle(number))
        for name, number in numbers.items()
        if name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
