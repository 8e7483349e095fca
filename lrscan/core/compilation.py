"""Log messages about kernels that take long to compile.

The logger is "lrscan.compilation". To silence it, set
``logging.getLogger("lrscan.compilation").disabled = True``, or use :func:`quiet` for a block.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger("lrscan.compilation")
# A shorter compilation is not worth a message.
PATIENCE_S = 1.0


@contextmanager
def noticed(what: str, kept: bool) -> Iterator[None]:
    """Log once that ``what`` is being compiled, if the body takes more than a second.

    Args:
        what: what is compiled, as a reader should see it: "the CUDA kernel ..."
        kept: whether the result is kept on disk
    """
    later = "kept for the next time" if kept else "not kept: no cache folder is writable"
    timer = threading.Timer(
        PATIENCE_S, _log.warning, ("compiling %s takes some seconds (%s)", what, later)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the log within a block, for a caller that reports compilations itself."""
    before, _log.disabled = _log.disabled, True
    try:
        yield
    finally:
        _log.disabled = before
