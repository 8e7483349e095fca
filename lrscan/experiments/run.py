"""Running experiments by name: their parameters, their measurement and their results."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from lrscan.evidence import origin, provenance, workspace
from lrscan.evidence.context import Context, entered
from lrscan.evidence.records import Records
from lrscan.experiments import registry, show
from lrscan.experiments.registry import Experiment
from lrscan.experiments.resume import Paused
from lrscan.runner import catalog
from lrscan.runner.catalog import Notebook

PAUSED_STATUS = 75  # "try again later" in sysexits.h


@dataclass(frozen=True)
class MeasurementPlan:
    """Experiments to measure, with their parameters.

    Attributes:
        experiments: each with those parameters of its notebook that it takes
        profile:     the profile that the parameters are from
        device:      the device to measure on
        others:      the notebooks that none of the experiments needs
    """

    experiments: list[tuple[Experiment, dict[str, Any]]]
    profile: str
    device: torch.device
    others: list[Notebook]


def plan(
    names: Iterable[str], *, profile: str, device: str, assignments: Iterable[str] = ()
) -> MeasurementPlan:
    """Look up everything before anything is measured.

    Args:
        names:       of experiments; all of them if there is no name
        profile:     of ``notebooks/profiles.toml``
        device:      "auto", "cpu" or "cuda"
        assignments: ``NAME=VALUE``, which override the profile's parameters

    Raises:
        ParameterError: there is no such experiment, device, profile or parameter, or a notebook
            that is needed is broken or missing
    """
    root = workspace.find_root()
    origin.check(root)
    every = catalog.discover(root)
    values = catalog.load_profile(root, profile, every)
    names = list(dict.fromkeys(names)) or list(registry.NAMES)
    if unknown := [name for name in names if name not in registry.NAMES]:
        raise catalog.ParameterError(
            f"no experiment is called {unknown[0]!r}; there are: {', '.join(registry.NAMES)}"
        )
    try:
        where = provenance.resolve_device(device)
    except ValueError as error:
        raise catalog.ParameterError(str(error)) from None
    experiments = [registry.load(name) for name in names]
    owners = {experiment.notebook for experiment in experiments}
    needed = [catalog.whole(notebook) for notebook in every if notebook.name in owners]
    if missing := owners - {notebook.name for notebook in needed}:
        raise catalog.ParameterError(f"an experiment belongs to {min(missing)}: no such notebook")
    given = catalog.override(values.parameters, needed, assignments)
    return MeasurementPlan(
        [(one, _own(one, given[one.notebook] | {"device": str(where)})) for one in experiments],
        profile,
        where,
        [notebook for notebook in every if notebook not in needed],
    )


def _own(experiment: Experiment, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those parameters of a notebook that its experiment takes."""
    if missing := [name for name in experiment.parameters if name not in given]:
        raise catalog.ParameterError(
            f"{experiment.name} takes {missing[0]!r}: no parameter of {experiment.notebook}"
        )
    return {name: given[name] for name in experiment.parameters}


def measure(
    planned: MeasurementPlan,
    *,
    record: bool = False,
    out: Path | None = None,
    until: float = math.inf,
    resume: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Measure one experiment after the other, write the records and print them.

    Args:
        planned: from :func:`plan`
        record:  write to the committed folder of records
        out:     write to this folder
        until:   start nothing later than this, by ``time.monotonic``, except the first experiment
        resume:  keep what is in the records already, and measure the rest
        options: for each experiment, in addition to its parameters; see
                 :attr:`lrscan.experiments.registry.Experiment.options`

    Returns:
        The exit status: PAUSED_STATUS if the time was up before everything was measured, else 0.
    """
    folder = str(out.resolve()) if out else None
    context = Context(planned.profile, recording=record, records=folder)
    console, left = Console(highlight=False), list[str]()
    with entered(context), _progress_on_stderr():
        workspace.check_writable(workspace.records_folder())
        for number, (experiment, parameters) in enumerate(planned.experiments):
            if number and time.monotonic() > until:
                left.append(experiment.name)
                continue
            pausing = {"resume": resume, "until": until} if experiment.resumes else {}
            measured: Records | None
            try:
                measured = experiment.measure(**parameters, **pausing, **options)
            except Paused as pause:
                measured = pause.measured
                left.append(f"{pause.left} pieces of {experiment.name}")
            if measured is not None:
                show.records(console, measured)
        if planned.device.type == "cuda":
            slug = provenance.device_slug(planned.device)
            show.targets(console, workspace.records_folder(), slug)
    if left:
        console.print(
            Text(f"The time was up. Left to measure with --resume: {', '.join(left)}"),
            soft_wrap=True,
        )
    return PAUSED_STATUS if left else 0


@contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Print the progress that long experiments log."""
    logger, handler = logging.getLogger(__package__), logging.StreamHandler()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
