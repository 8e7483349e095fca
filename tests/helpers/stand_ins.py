"""Experiments that stand in for the package's own."""

from lrscan.evidence import context, records
from lrscan.experiments import registry
from lrscan.experiments.registry import Experiment

PROVENANCE = {"device": "cpu-2-core", "device_label": "CPU, 2 cores"}


def stand_in(monkeypatch, *experiments):
    """Replace the package's experiments by these."""
    own = {one.name: one for one in experiments}
    monkeypatch.setattr(registry, "NAMES", tuple(own))
    monkeypatch.setattr(registry, "load", own.__getitem__)


def experiment(name, measure, *parameters, **more):
    return Experiment(name, "reproduce/01_speed", measure, parameters, **more)


def two(monkeypatch):
    """Replace the package's experiments by "speed" and "other"; return the list of their calls."""
    calls = []

    def write(name: str, **parameters):
        calls.append((name, parameters, context.current()))
        rows = [{"T": t, "median_ms": 0.5 * t, "q1_ms": 0.125} for t in parameters["lengths"]]
        return records.write(name, rows, PROVENANCE)

    def speed(*, device: str, seed: int, lengths: list[int]):
        """Speed at several lengths."""
        return write("speed", device=device, seed=seed, lengths=lengths)

    def other(**parameters):
        return write("other", **parameters)

    stand_in(
        monkeypatch,
        experiment("speed", speed, "device", "seed", "lengths"),
        experiment("other", other, "device", "seed", "lengths", "measure"),
    )
    return calls
