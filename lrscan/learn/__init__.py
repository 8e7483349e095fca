"""Support for the lessons in ``notebooks/learn/``.

Packages and modules::

    machines    run and count: scans that leave a trace, a simulated GPU, a model of look-back
    scenes      draw what the machines did, as figures, steppers and text
    exercises   check the answers to the exercises, one module per lesson
    editions    writes the lessons for students, and with solutions

Scenes import machines, never the other way round.
"""
