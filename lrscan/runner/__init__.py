"""Execution and checking of notebooks: ``lrscan run`` and ``lrscan verify``."""
