"""Settings of all tests, in addition to those in pyproject.toml."""

import os
import signal

import pytest
import torch

# Keep matplotlib from opening windows, whichever backend it would choose on this machine.
os.environ["MPLBACKEND"] = "Agg"


# Subprocesses of a test must receive SIGHUP, even if nohup runs the tests and ignores it.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # subprocesses do not inherit a handler


@pytest.fixture(autouse=True)
def _seed():
    """Make the random numbers of a test independent of the tests before it."""
    torch.manual_seed(0)
