"""The steps that every notebook of the reproduction repeats: take records, show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lrscan.evidence import figures, records
from lrscan.evidence.records import Records
from lrscan.experiments import registry

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


def take(module: ModuleType, measure: bool, **parameters: Any) -> list[Records]:
    """Measure an experiment on this machine, or read its committed records of every device.

    Args:
        module:     the experiment's module, such as :mod:`lrscan.experiments.kernel_speedup`
        measure:    True to measure, False to read
        parameters: the arguments of the module's ``measure``

    Returns:
        The records of one device, or of each device that has committed ones.

    Raises:
        TypeError: ``parameters`` are not the arguments of ``measure``
    """
    experiment: registry.Experiment = module.EXPERIMENT
    inspect.signature(experiment.measure).bind(**parameters)
    return [experiment.measure(**parameters)] if measure else read(module)


def read(module: ModuleType) -> list[Records]:
    """Read the committed records of an experiment, of every device that has them."""
    name = module.EXPERIMENT.name
    return [records.read(name, device) for device in records.devices(name)]


def show(found: Iterable[Records], name: str) -> None:
    """Draw a figure of each of the records, save it and show it.

    Args:
        found: records of one experiment on several devices
        name:  the figure's name, one of the experiment's ``figures``

    Raises:
        KeyError: the experiment has no such figure
    """
    for one in found:
        plot = registry.load(one.experiment).figures[name]
        show_figure(plot.draw(one), name, plot.alt, one)


def show_figure(figure: Figure, name: str, alt: str, of: Records | None = None) -> None:
    """Save a figure and show it; without records it is a drawing."""
    from IPython.display import display

    figures.save(figure, name, of, alt=alt)
    display(figure)


def show_tables(
    found: Iterable[Records], make: Callable[[Records], pandas.DataFrame], digits: int = 2
) -> None:
    """Show a rounded table of each of the records under the name of its device, NaN as blank."""
    from IPython.display import display

    for one in found:
        table = make(one).round(digits)
        start, end, rest = table.to_html(na_rep="", border=0).partition(">")
        html = f"{start}{end}<caption>{escape(one.device_label)}</caption>{rest}"
        text = f"{one.device_label}\n{table.to_string(na_rep='')}"
        display({"text/html": html, "text/plain": text}, raw=True)
