"""CUDA kernels for the lessons, which run in the simulator.

They are small on purpose: one block, one column, at most 32 steps. The kernels that the package
runs on a GPU are in :mod:`lrscan.cuda`.
"""

from __future__ import annotations

from lrscan.learn.machines import simulator as simulator  # before numba.cuda

# isort: split
from numba import cuda, float32

from lrscan.cuda.steps import compose


@cuda.jit
def missing_barrier(a, x, h0, h):
    """Scan up to 32 steps in shared memory, as long as no thread is too fast."""
    P = cuda.shared.array(32, float32)
    R = cuda.shared.array(32, float32)
    i = cuda.threadIdx.x
    P[i], R[i] = 1, 0  # threads without a step hold the identity
    if i < a.size:
        P[i], R[i] = a[i], x[i]
    distance = 1
    while distance < 32:
        cuda.syncthreads()
        p, r = P[i], R[i]
        if i >= distance:
            p, r = compose(P[i - distance], R[i - distance], p, r)
        P[i], R[i] = p, r
        distance *= 2
    if i < a.size:
        h[i] = P[i] * h0 + R[i]


@cuda.jit
def tree_level(x, sums, stride, padding):
    """Compute one level of a tree over 1,024 cells of shared memory with 32 threads.

    ``padding`` is 1 to leave a cell unused after every 32, else 0. ``sums`` receives what each
    thread wrote.
    """
    cell = cuda.shared.array(1024 + 32, float32)
    i = cuda.threadIdx.x
    for k in range(i, 1024, 32):
        cell[k + padding * (k // 32)] = x[k]
    cuda.syncthreads()
    left = 2 * stride * i + stride - 1
    right = left + stride
    total = cell[left + padding * (left // 32)] + cell[right + padding * (right // 32)]
    cell[right + padding * (right // 32)] = total
    sums[i] = total
