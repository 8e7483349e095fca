"""Standard output and error that take any text."""

import io
import sys


def take_any_text() -> None:
    """Print a letter that the encoding of a stream lacks as its number, instead of failing.

    What is printed may be anything: the message of an exception, the name of a file.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
