"""Checks of the exercises: each says in words what is wrong with an answer.

A check is called with the learner's function. It prints its verdict; in a headless run, where the
marked solutions stand in the place of the stubs, it raises instead, so that a wrong solution
fails the notebook.
"""
