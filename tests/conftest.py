"""What every test needs; that warnings are errors is in pyproject.toml."""

import os

import pytest
import torch

# No test opens a window, whatever matplotlib would choose on this machine.
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(autouse=True)
def _seed():
    """What a test draws does not depend on the tests that ran before it."""
    torch.manual_seed(0)
