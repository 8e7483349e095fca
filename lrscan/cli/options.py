"""What commands have in common: options, and how errors are reported."""

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


class Minutes(click.FloatRange):
    """A time above zero, which NaN is not: nothing is later than that, and so it has no end."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; refused if it is none."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of minutes.", param, ctx)
        return number


profile_option = click.option(
    "--profile",
    default="quick",
    show_default=True,
    metavar="quick|full|gpu",
    help="Whose parameters to use, of notebooks/profiles.toml.",
)
parameter_option = click.option(
    "-p",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter; every selected notebook must have it. Repeatable.",
)
compiling_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that compile CUDA kernels; default: one for each core.",
)


def _use_build_folder(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    if folder:  # notebooks run elsewhere, and so need the whole path
        folder = folder.resolve()
        # What is compiled has a place there too; no notebook depends on files below that name.
        caches = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}
        settings = {
            name: os.environ.get(name) or str(folder / "__pycache__" / kind)
            for name, kind in caches.items()
        }
        context.with_resource(environment(LRSCAN_BUILD=str(folder), **settings))


build_option = click.option(
    "--build",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    envvar="LRSCAN_BUILD",
    show_envvar=True,
    expose_value=False,
    callback=_use_build_folder,
    help="What runs make goes there instead of build/, as where the project cannot be written.",
)
record_option = click.option(
    "--record", is_flag=True, help="Write to the committed folder figures/ instead of build/."
)


def report_usage_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can mend into a message and exit status 2, Ctrl-C into 130.

    A file that cannot be read or written is named, with exit status 1.
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
            told = f"{path.resolve()}: {error.strerror}.{workspace.remedy(path)}"
            raise click.ClickException(told) from None
        except KeyboardInterrupt:
            sys.exit(130)

    return wrapped


def tell_broken(others: Iterable[catalog.Notebook]) -> None:
    """Name the broken ones among notebooks that this command can do without."""
    for notebook in others:
        if notebook.broken:
            click.echo(f"{notebook.name} is broken: {notebook.broken}", err=True)
