"""Settings of all tests, in addition to those in pyproject.toml."""

import os
import signal
from pathlib import Path

# Two test processes share the cores. With several threads each, threads that wait for each other
# would lose whole time slices. Tests of threads set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from slow import SLOW  # noqa: E402

# Keep matplotlib from opening windows, whichever backend it would choose on this machine.
os.environ["MPLBACKEND"] = "Agg"


# Subprocesses of a test must receive SIGHUP, even if nohup runs the tests and ignores it.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # subprocesses do not inherit a handler


@pytest.fixture(autouse=True)
def _seed():
    """Make the random numbers of a test independent of the tests before it."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """Put the longest files first, and mark them as slow."""
    here, order = Path(__file__).parent, list(SLOW)
    rank = {}
    for item in items:
        name = item.path.relative_to(here).as_posix()
        rank[item] = order.index(name) if name in SLOW else len(order)
        if name in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank.__getitem__)


def pytest_terminal_summary(terminalreporter, config):
    """Say what `make test-fast` leaves out."""
    if "not slow" in config.option.markexpr:
        terminalreporter.section("left out, see make test")
        for name, what in SLOW.items():
            terminalreporter.write_line(f"tests/{name}: {what}")
