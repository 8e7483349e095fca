"""What the lessons stand on, in three rooms.

    machines    what runs and counts: traced scans, a simulated GPU, a model of look-back
    scenes      what draws: the machines' work as figures, steppers and text
    exercises   the checks of the exercises, one module per lesson
    editions    the lessons for students, and with solutions

Scenes import machines, never the other way round.
"""

__all__ = ["exercises", "machines", "scenes"]
