"""Standard output and error that take any text, and may be closed by who reads them."""

import errno
import io
import os
import sys
from typing import Any


def take_any_text() -> None:
    """Print a letter that the encoding of a stream lacks as its number, instead of failing.

    What is printed may be anything: the message of an exception, the name of a file.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Unheard:
    """A stream that is written to as long as somebody reads it: a run goes on without.

    A pipe has nobody left to read it, or the terminal was closed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what somebody may hear."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Let it be heard now."""
        self._try(self._stream.flush)

    def _try(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # Or else Python tries again at its end, and complains.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
