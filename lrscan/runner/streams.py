"""Standard output and error that accept any text, and survive when their reader goes away."""

import errno
import io
import os
import sys
from typing import Any


def take_any_text() -> None:
    """Print escape codes for characters that a stream's encoding lacks, instead of failing.

    The printed text can have any character: it may be an exception's message or a file's name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class BestEffortStream:
    """Stream that drops its output once nobody reads it any more, so that a run can continue.

    That happens if the process at the other end of a pipe ends, or if the terminal is closed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if somebody still reads the stream."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if somebody still reads it."""
        self._try(self._stream.flush)

    def _try(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # Without this, Python would flush once more at its exit, and print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
