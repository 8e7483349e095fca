"""lrscan: the linear recurrence h[t] = a[t] * h[t-1] + x[t], in parallel over time."""

from importlib.metadata import PackageNotFoundError, version

from lrscan.ops import linear_recurrence
from lrscan.reference import linear_recurrence_reference

try:
    __version__ = version("lrscan")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"

__all__ = ["__version__", "linear_recurrence", "linear_recurrence_reference"]
