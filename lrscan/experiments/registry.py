"""The list of experiments, and what each of them declares."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lrscan.evidence.records import Records
    from lrscan.experiments.verdicts import Finding

# In the order in which `lrscan bench` measures them. Each is a module of this package.
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
class Plot:
    """A figure of an experiment.

    Attributes:
        draw: draws it from the experiment's records
        alt:  what it shows, in a sentence, for readers who cannot see it
    """

    draw: Callable[[Records], Figure]
    alt: str


@dataclass(frozen=True)
class Experiment:
    """An experiment, as its module declares it.

    Attributes:
        name:       the name of the module and of the records, and the one that `lrscan bench` takes
        notebook:   the notebook that shows it
        measure:    takes the measurements; all its arguments are keywords
        parameters: the parameters of the notebook that ``measure`` takes
        options:    other arguments of ``measure``; they have defaults, and no notebook sets them
        resumes:    True if ``measure`` takes ``resume`` and ``until``, see
                    :func:`lrscan.experiments.resume.in_pieces`
        figures:    its figures by file name
        verdict:    judges a claim of the paper by the records
        headline:   the number of the records that stands next to the paper's, as short text; empty
                    if the records do not have it
    """

    name: str
    notebook: str
    measure: Callable[..., Records]
    parameters: tuple[str, ...]
    options: tuple[str, ...] = ()
    resumes: bool = False
    figures: Mapping[str, Plot] = field(default_factory=dict)
    verdict: Callable[[Records], Finding] | None = None
    headline: Callable[[Records], str] | None = None

    @property
    def summary(self) -> str:
        """The first line of the docstring of ``measure``, without its period."""
        return (self.measure.__doc__ or "").partition("\n")[0].rstrip(".")


def load(name: str) -> Experiment:
    """Return the experiment of that name, which is one of ``NAMES``."""
    return importlib.import_module(f"{__package__}.{name}").EXPERIMENT


def load_all() -> list[Experiment]:
    """Return every experiment, in the order of ``NAMES``."""
    return [load(name) for name in NAMES]
