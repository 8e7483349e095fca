"""Scenes of what the machines did, as figures, steppers and text.

Modules::

    scene                          the drawing engine: shapes in frames
    player                         the stepper, an interactive page
    draw                           dependences: scans, gradients, networks, tiles in time
    memory                         reads and writes of cells, and lanes in banks
    plane                          plots: work and depth, the roofline, errors
    serial_parallel, long_memory   two figures of the paper
"""
