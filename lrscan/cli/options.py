"""Options that several commands share, and how their errors are reported."""

import math
import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lrscan.evidence import workspace
from lrscan.evidence.context import environment
from lrscan.runner import catalog

DEVICES = ("auto", "cpu", "cuda")
FOLDER = click.Path(file_okay=False, path_type=Path)


class Minutes(click.FloatRange):
    """Positive number of minutes. NaN is refused, since a deadline of NaN would never pass."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail if it is NaN."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of minutes.", param, ctx)
        return number


profile_option = click.option(
    "--profile",
    default="quick",
    show_default=True,
    metavar="quick|full|gpu",
    help="Profile in notebooks/profiles.toml that sets the parameters of the notebooks.",
)
parameter_option = click.option(
    "-p",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter. Every selected notebook must have it. Repeatable.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="|".join(DEVICES),
    help="Device to measure or to train on; auto means the GPU if there is one.",
)
records_option = click.option(
    "--out", type=FOLDER, metavar="DIR", help="Write records to DIR/<device>/."
)
compiling_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of processes that compile CUDA kernels; default: one per core.",
)


def _use_build_folder(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    if folder:
        folder = folder.resolve()  # absolute, since notebooks run in other folders
        # Caches are in __pycache__, since files there do not count as dependencies of a notebook.
        caches = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}
        settings = {
            name: os.environ.get(name) or str(folder / "__pycache__" / kind)
            for name, kind in caches.items()
        }
        context.with_resource(environment(LRSCAN_BUILD=str(folder), **settings))


build_option = click.option(
    "--build",
    type=FOLDER,
    metavar="DIR",
    envvar="LRSCAN_BUILD",
    show_envvar=True,
    expose_value=False,
    callback=_use_build_folder,
    help="Folder for everything that runs produce, instead of build/. Use it if the project's "
    "folder is read-only.",
)
record_option = click.option(
    "--record", is_flag=True, help="Write to the committed folder figures/ instead of build/."
)


def report_usage_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Report errors that a user can fix as messages, without a traceback.

    The exit status is 2 for wrong usage, 1 for a file that cannot be read or written, and 130 for
    Ctrl-C.
    """

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (workspace.WorkspaceError, catalog.ParameterError) as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            if not isinstance(error.filename, str):
                raise
            path = Path(error.filename)
            message = f"{path.resolve()}: {error.strerror}.{workspace.remedy(path)}"
            raise click.ClickException(message) from None
        except KeyboardInterrupt:
            sys.exit(130)

    return wrapped


def report_broken(others: Iterable[catalog.Notebook]) -> None:
    """Print which of the notebooks that this command does not need are broken, and why."""
    for notebook in others:
        if notebook.broken:
            click.echo(f"{notebook.name} is broken: {notebook.broken}", err=True)
