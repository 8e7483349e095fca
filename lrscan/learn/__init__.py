"""What the lessons need: scans that leave a trace, and drawings of them."""
