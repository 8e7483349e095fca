"""Checks that a deliberately wrong scan must fail; test_mutations.py runs them on a copy.

``python mutants.py KIND [KIND ...]`` draws coefficients of each kind.
"""

import sys

import torch
from recurrences import check, draw

from lrscan import linear_recurrence
from lrscan.cpu import dispatch

dispatch.CHUNK_BYTES, dispatch.ROW_STRIPS = 1, 2

for kind in sys.argv[1:]:
    # Chunks have 128 steps in the last layout, and one step in the others.
    for shape, dim in [((40, 4), 0), ((40, 35), 0), ((2, 300), 1)]:
        a, x, h0, dh = draw(shape, torch.complex64, dim, kind=kind)
        for start in (h0, None):
            inputs = [t.clone().requires_grad_() for t in (a, x, start) if t is not None]
            h = linear_recurrence(*inputs, dim=dim, algorithm="blocked")
            found = torch.autograd.grad(h, inputs, dh)
            check([h.detach(), *found, *[None] * (3 - len(found))], a, x, start, dh, dim, False)
