"""What runs and counts: scans that leave a trace, a simulated GPU, a model of look-back.

Modules::

    trace, machine         scans on a synchronous machine that writes every operation down
    counts                 what each scan costs, in closed form
    monoids                scans over other operations
    numerics               four formulas of the recurrence, and their errors
    simulator, accesses    CUDA kernels without a GPU, and what their threads do to memory
    kernels, traffic       kernels for the lessons; bytes that the package's own kernels move
    warp, banks            shuffles of a warp; its lanes in the banks of shared memory
    lookback               look-back between tiles as a model in time
    interleave, protocol   programs in every order; look-back as such programs
    roofline               what bounds the speed of a scan
"""
