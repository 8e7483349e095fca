"""What every test needs; that warnings are errors is in pyproject.toml."""

import os
import signal

import pytest
import torch

# No test opens a window, whatever matplotlib would choose on this machine.
os.environ["MPLBACKEND"] = "Agg"


# What a test starts hears a lost terminal, also where the tests themselves were started by nohup.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # a handler is not inherited


@pytest.fixture(autouse=True)
def _seed():
    """What a test draws does not depend on the tests that ran before it."""
    torch.manual_seed(0)
