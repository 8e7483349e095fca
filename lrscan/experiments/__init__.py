"""The experiments of the suite, one module each: measure, summarise, plot, and a verdict.

A module such as `kernel_speedup` has

    measure(*, ...)    takes the measurements, writes records and returns them
    summarise(records) the table that the figure shows, where it is more than the records' own
    plot(records)      the figure
    verdict(records)   what the records say of a claim of the paper, where one hangs on it
    EXPERIMENT         all of it as an :class:`lrscan.experiments.registry.Experiment`

A new experiment is such a module, its name in `registry.NAMES`, and a notebook whose parameters it
takes. Modules are imported when they are needed: `lrscan bench --help` imports none of them.
"""

from lrscan.experiments.registry import NAMES

__all__ = list(NAMES)
