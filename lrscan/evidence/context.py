"""The context of a run, which the run passes to its notebooks and measurements.

Notebooks and measurements run in their own processes. A run therefore stores its context as JSON in
the environment variable ``LRSCAN_RUN``, and :func:`current` reads it there. If the variable is not
set, somebody opened the notebook or called the function by hand.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

VARIABLE = "LRSCAN_RUN"


@dataclass(frozen=True)
class Context:
    """Context of a run, or of one notebook in it.

    Attributes:
        profile: the profile's name; None outside a run
        recording: True if records and figures go to the committed folder ``figures/``
        records: a folder that receives the records instead (``lrscan bench --out DIR``)
        figures: a folder that receives the figures instead (``lrscan verify`` draws into one)
        notebook: the notebook that a run executes; None if there is none, or if a person runs it
        parameters: the values of the notebook's parameters
        started: the start of the notebook, in seconds since 1970
    """

    profile: str | None = None
    recording: bool = False
    records: str | None = None
    figures: str | None = None
    notebook: str | None = None
    parameters: dict[str, Any] | None = None
    started: float | None = None

    @property
    def headless(self) -> bool:
        """True if a run executes a notebook, so that nobody can answer a question."""
        return self.notebook is not None

    def variables(self) -> dict[str, str]:
        """Return the environment variables of a process in this context."""
        return {VARIABLE: json.dumps(asdict(self))}

    def of(self, notebook: str, **more: Any) -> "Context":
        """Return the context of one notebook of this run."""
        return replace(self, notebook=notebook, **more)


def current() -> Context:
    """Return the context of this process."""
    text = os.environ.get(VARIABLE)
    return Context(**json.loads(text)) if text else Context()


@contextmanager
def entered(context: Context) -> Iterator[None]:
    """Put this process, and the processes that it starts, into a context for a while."""
    with environment(**context.variables()):
        yield


@contextmanager
def environment(**settings: str | None) -> Iterator[None]:
    """Set environment variables for a while; a value of None removes the variable."""
    before = {name: os.environ.get(name) for name in settings}
    try:
        _set(settings)
        yield
    finally:
        _set(before)


def _set(settings: dict[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
