"""The CPU backend, in Numba. Its entry point is :mod:`lrscan.cpu.dispatch`."""
