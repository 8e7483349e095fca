"""The backend for GPUs, in Numba CUDA. :mod:`lrscan.cuda.dispatch` is its entry point."""
