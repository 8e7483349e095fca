"""Campaigns: all measurements on a GPU, by one command and within a time limit.

The commands of ``lrscan campaign``::

    run      runs the phases, the most valuable first, each within its own limit; measurements are
             in the result folder within a second, and a later run continues from there
    kit      compiles, on a machine without a GPU, the kernels that the phases launch
    merge    checks a result folder and merges its records and figures into the repository

A result folder has two files: ``campaign.zip`` with records, notes and logs, and ``summary.txt``.
"""
