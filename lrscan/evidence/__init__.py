"""What stands behind a figure: records, where they come from, where they lie; the paper's own."""

__all__ = ["context", "figures", "paper", "provenance", "records", "workspace"]
