"""The experiments of the suite, one module each: measure, summarise, plot, and a verdict.

A module such as ``kernel_speedup`` has::

    measure(*, ...)     takes the measurements, writes records and returns them
    summarise(records)  the table that the figure shows, if it is more than the records themselves
    plot(records)       the figure
    verdict(records)    what the records say about a claim of the paper, if it tests one
    headline(records)   the one number of ours that stands next to the paper's
    EXPERIMENT          all of it as an lrscan.experiments.registry.Experiment

To add an experiment, write such a module, add its name to ``registry.NAMES``, and write a notebook
with the parameters that it takes; the functions of ``notebook`` show it there. Modules are imported
when they are needed: ``lrscan bench --help`` imports none of them.
"""
