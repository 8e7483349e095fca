"""Where a lesson runs: in front of a learner, or headless."""

from __future__ import annotations

import os


def headless() -> bool:
    """True in a headless run, in which nobody reads a verdict or types into a page."""
    return "LRSCAN_NOTEBOOK" in os.environ
