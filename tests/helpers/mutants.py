"""Checks that a deliberately wrong scan must fail; test_mutations.py runs them on a copy.

``python mutants.py LAYOUT [LAYOUT ...] -- KIND [KIND ...]`` takes tensors of these layouts, with
coefficients of each kind.
"""

import sys

import torch
from recurrences import check, draw

from lrscan import linear_recurrence
from lrscan.cpu import dispatch

dispatch.CHUNK_BYTES, dispatch.ROW_STRIPS = 1, 2
# (shape, dim); the chunks of the last one have 128 steps, those of the others one.
LAYOUTS = {"few columns": ((40, 4), 0), "columns": ((40, 35), 0), "time": ((2, 300), 1)}

end = sys.argv.index("--")
for kind in sys.argv[end + 1 :]:
    for shape, dim in map(LAYOUTS.__getitem__, sys.argv[1:end]):
        a, x, h0, dh = draw(shape, torch.complex64, dim, kind=kind)
        for start in (h0, None):
            inputs = [t.clone().requires_grad_() for t in (a, x, start) if t is not None]
            h = linear_recurrence(*inputs, dim=dim, algorithm="blocked")
            found = torch.autograd.grad(h, inputs, dh)
            check([h.detach(), *found, *[None] * (3 - len(found))], a, x, start, dh, dim, False)
