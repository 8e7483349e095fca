"""Made-up records of training runs."""

from lrscan.evidence import records


def trained(provenance, experiment, *runs, initialisation="chrono", rate=1e-3, start_steps=0):
    """Add records of runs given as (model, T, seed, iteration of the strict criterion or None).

    An iteration takes one second. A run that did not learn stopped after 50 iterations. Accuracy
    rises from 0.5 to 1 in equal steps.
    """
    for model, steps, seed, at in runs:
        name = f"{model}-{steps}-{start_steps}-{initialisation}-{rate}-{seed}"
        settings = {"model": model, "steps": steps, "batch": 8, "hidden": 64, "seed": seed}
        settings |= {"distractors": "any", "initialisation": initialisation, "rate": rate}
        if start_steps:  # records older than the curricula lack this key
            settings["start_steps"] = start_steps
        count = at or 50
        ended = {"run": name, "status": "learned" if at else "not learned", "strict_at": at}
        ended |= {"paper_at": at, "iterations": count, "seconds": float(count)}
        ended |= {"held_out": 1.0 if at else 0.5, "held_out_interval": [0.4, 1.0]}
        origin = {"parameters": settings, "outcome": ended, "measured_at": "2026-01-01T00:00:00Z"}
        identity = {"run": name, "model": model, "T": steps, "B": 8, "C": 64, "seed": seed}
        rows = [
            identity
            | {"iteration": i, "seconds": float(i), "accuracy": 0.5 + 0.5 * (i - 1) / (count - 1)}
            for i in range(1, count + 1)
        ]
        measured = records.add(experiment, rows, provenance | origin, key=("run",))
    return measured
