"""The backend for the CPU, in Numba: :mod:`lrscan.cpu.dispatch` is its door."""
