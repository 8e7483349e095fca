"""A campaign: everything that is to be measured on a GPU, by one command and within given minutes.

    run      works down the phases, the most valuable first, each within its own limit; what is
             measured is in the result folder within a second, and a later run goes on from there
    kit      compiles, on a machine without a GPU, the kernels that the phases launch
    merge    checks a result folder and brings its records and figures into the repository

A result folder has two files: `campaign.zip` with records, notes and logs, and `summary.txt`.
"""
