"""The operator: what it takes, its derivatives, and its way to a backend."""
