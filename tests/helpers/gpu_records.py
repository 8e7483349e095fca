"""Provenance of made-up records of a GPU."""

ORIGIN = {
    "device": "h100",
    "device_label": "NVIDIA H100",
    "device_type": "cuda",
    "parameters": {"runs": 3},
    "seed": 0,
    "commit": "c0ffee",
    "versions": {"torch": "2"},
    "profile": "gpu",
}
