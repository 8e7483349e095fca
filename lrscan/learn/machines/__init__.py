"""Machines that run and count: traced scans, a simulated GPU, a model of look-back.

Modules::

    trace, machine         scans on a synchronous machine that records every operation
    counts                 the cost of each scan in closed form
    monoids                scans over other operations
    numerics               four formulas for the recurrence, and their errors
    simulator, accesses    CUDA kernels without a GPU, and the memory accesses of their threads
    kernels, traffic       kernels for the lessons; bytes that the package's own kernels move
    warp, banks            shuffles within a warp; bank conflicts in shared memory
    lookback               a model in time of look-back between tiles
    interleave, protocol   an explorer of all orders of a few programs; look-back as such programs
    roofline               bounds on the speed of a scan
"""
