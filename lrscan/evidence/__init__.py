"""Records of measurements: their files, provenance and figures, and the paper's own numbers."""

__all__ = ["figures", "paper", "provenance", "records"]
