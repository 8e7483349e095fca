"""Saying that a kernel is being compiled, where that takes long enough for somebody to wonder.

The logger is "lrscan.compilation": ``logging.getLogger("lrscan.compilation").disabled = True``
silences it, and :func:`quiet` for a while.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger("lrscan.compilation")
# A compilation that takes no longer is not worth a word.
PATIENCE_S = 1.0


@contextmanager
def noticed(what: str, kept: bool) -> Iterator[None]:
    """Log, once, that ``what`` is being compiled, if the body takes more than a second.

    Args:
        what: for a reader: "the CUDA kernel ..."
        kept: whether the result is kept on disk
    """
    later = "kept for the next time" if kept else "not kept: no cache folder can be written"
    timer = threading.Timer(
        PATIENCE_S, _log.warning, ("compiling %s: some seconds (%s)", what, later)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing of this kind: whoever waits knows why."""
    before, _log.disabled = _log.disabled, True
    try:
        yield
    finally:
        _log.disabled = before
