"""Notebooks, executed and judged: `lrscan run` and `lrscan verify`."""
