"""Checks of the exercises: each says in words what is wrong with an answer.

``lesson_01`` to ``lesson_09`` contain the checks of one notebook each. A check has the name of the
function that the learner writes, and is called with it::

    from lrscan.learn.exercises import lesson_01 as check

    check.reduce_chunk(reduce_chunk)

It prints its verdict. In a headless run, which uses the solutions instead of the stubs, it raises
instead, so that a wrong solution fails the notebook.

Two modules are shared::

    check      by all checks: the verdict, comparing answers, naming mistakes
    launches   by the checks of CUDA kernels, in lessons 3 to 6

Lessons 3 to 6 switch Numba's CUDA simulator on.
"""
