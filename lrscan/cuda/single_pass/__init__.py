"""The chained scan with look-back. :mod:`lrscan.cuda.single_pass.kernel` is its entry point."""
