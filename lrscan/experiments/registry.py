"""The table of experiments, and what an experiment is made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lrscan.evidence.records import Records
    from lrscan.experiments.verdicts import Finding

# In the order in which `lrscan bench` takes them. Each is a module beside this one.
NAMES = (
    "correctness",
    "kernel_speedup",
    "throughput",
    "call_cost",
    "training_speedup",
    "lstm_throughput",
    "problem_2b_search",
    "problem_2b",
    "step_time",
    "long_memory",
    "scaling",
    "peak_memory",
)


@dataclass(frozen=True)
class Experiment:
    """An experiment, as its module declares it.

    name        the name of the module, of the records, and for `lrscan bench`
    notebook    the notebook that shows it
    measure     takes the measurements; called with keywords only
    parameters  the parameters of the notebook that ``measure`` takes
    options     other arguments of ``measure``, which have defaults and which no notebook sets
    resumes     whether ``measure`` takes ``resume`` and ``until``, see
                :func:`lrscan.experiments.resume.in_pieces`
    figures     the functions that draw its records, by the file name of the figure
    verdict     from records to what they say of a claim of the paper
    """

    name: str
    notebook: str
    measure: Callable[..., Records]
    parameters: tuple[str, ...]
    options: tuple[str, ...] = ()
    resumes: bool = False
    figures: Mapping[str, Callable[[Records], Figure]] = field(default_factory=dict)
    verdict: Callable[[Records], Finding] | None = None

    @property
    def summary(self) -> str:
        """What it measures, in a line."""
        return (self.measure.__doc__ or "").partition("\n")[0].rstrip(".")


def load(name: str) -> Experiment:
    """The experiment of that name, one of NAMES."""
    return importlib.import_module(f"{__package__}.{name}").EXPERIMENT


def load_all() -> list[Experiment]:
    """Every experiment, in the order of NAMES."""
    return [load(name) for name in NAMES]
