"""What draws: scenes of what the machines did, as figures, steppers and text.

    scene                          the drawing engine: shapes in frames
    player                         the stepper, an interactive page
    draw                           traced scans, and other pictures of what waits for what
    plane                          plots: work and depth, the roofline, curves
    serial_parallel, long_memory   two figures of the paper
"""
