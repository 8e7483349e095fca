"""What every test needs; that warnings are errors is in pyproject.toml."""

import os

# No test opens a window, whatever matplotlib would choose on this machine.
os.environ["MPLBACKEND"] = "Agg"
