"""Checks of the exercises: each says in words what is wrong with an answer.

``lesson_01`` to ``lesson_09`` hold the checks of one notebook each. A check has the name of the
function that the learner writes, and is called with it:

    from lrscan.learn.exercises import lesson_01 as check

    check.reduce_chunk(reduce_chunk)

It prints its verdict. In a headless run, where the marked solutions take the place of the stubs,
it raises instead, so that a wrong solution fails the notebook.

    check      what all checks share: the verdict, comparing answers, naming mistakes
    launches   what the checks of CUDA kernels share, in lessons 3 to 6

Lessons 3 to 6 switch Numba's CUDA simulator on.
"""
