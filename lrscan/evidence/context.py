"""What a run is, as its notebooks and measurements see it.

These run in processes of their own, so a run puts its context into the environment, as JSON in the
variable `LRSCAN_RUN`, from where :func:`current` reads it. Where nothing was put, a notebook was
opened or a function called by hand.
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
    """A run, or one notebook of it.

    profile      the profile's name; None by hand
    recording    whether records and figures go to the committed folder `figures/`
    records      a folder for records instead (`lrscan bench --out DIR`)
    figures      a folder for figures instead (`lrscan verify` draws them again there)
    notebook     the notebook that is executed; None: none is, or by a person
    parameters   the values of its parameters
    started      when it was begun, in seconds since 1970
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
        """Whether a notebook is executed with nobody before it."""
        return self.notebook is not None

    def variables(self) -> dict[str, str]:
        """The environment of a process in this context."""
        return {VARIABLE: json.dumps(asdict(self))}

    def of(self, notebook: str, **more: Any) -> "Context":
        """The context of one notebook of this run."""
        return replace(self, notebook=notebook, **more)


def current() -> Context:
    """The context of this process."""
    told = os.environ.get(VARIABLE)
    return Context(**json.loads(told)) if told else Context()


@contextmanager
def entered(context: Context) -> Iterator[None]:
    """In it this process, and those that it starts, are in a context."""
    with environment(**context.variables()):
        yield


@contextmanager
def environment(**settings: str | None) -> Iterator[None]:
    """Set environment variables for a while; None removes one."""
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
