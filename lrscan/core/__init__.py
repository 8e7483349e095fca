"""The operator: its arguments, its derivatives, and the dispatch to a backend."""
