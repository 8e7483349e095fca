"""What draws: scenes of what the machines did, as figures, steppers and text.

Modules::

    scene                          the drawing engine: shapes in frames
    player                         the stepper, an interactive page
    draw                           what waits for what: scans, gradients, networks, tiles in time
    memory                         who reads and writes which cells, and who wants which bank
    plane                          plots: work and depth, the roofline, errors
    serial_parallel, long_memory   two figures of the paper
"""
