"""Command ``lrscan train``: settings from the command line, a progress bar, records."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from lrscan.evidence import workspace
from lrscan.evidence.context import current, entered
from lrscan.evidence.provenance import git_state, resolve_device
from lrscan.experiments.run import PAUSED_STATUS
from lrscan.train import files
from lrscan.train.loop import DIVERGED, NOT_LEARNED, PAUSED, Run, train
from lrscan.train.settings import Settings


def main(
    *,
    assignments: tuple[str, ...],
    seeds: tuple[int, ...],
    listing: bool,
    name: str,
    device: str,
    checkpoints: Path | None,
    minutes: float | None,
    graph: bool | None,
    record: bool,
    out: Path | None,
) -> int:
    """Train one run per seed, write the records, and return the exit status."""
    if listing:
        for field in fields(Settings):
            if field.name != "seed":
                click.echo(f"{field.name} = {field.default!r}")
        return 0
    if record and out:
        raise click.UsageError("--record and --out both set the folder of the records: give one")
    given: dict[str, Any] = dict(map(_setting, assignments))
    try:
        workspace.check_name(name)
        runs = [Settings(**given, seed=seed) for seed in dict.fromkeys(seeds)]
        where = resolve_device(device)
        if graph and where.type != "cuda":
            raise ValueError(f"--graph needs a GPU, not {where}")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    git_state()  # raises if the checkout holds other code than the code that runs
    folder = checkpoints or workspace.build_folder() / "checkpoints"
    begun, statuses = perf_counter(), set()
    context = replace(current(), recording=record, records=str(out.resolve()) if out else None)
    console = Console(highlight=False)
    with entered(context):
        for place in (folder, workspace.records_folder()):
            workspace.check_writable(place)
        for one in runs:
            left = None if minutes is None else 60 * minutes - (perf_counter() - begun)
            if left is not None and left <= 0:
                statuses.add(PAUSED)
                break
            try:
                with _progress(console, one) as on_iteration:
                    run = train(
                        one,
                        device=where,
                        folder=folder,
                        seconds=left,
                        graph=graph,
                        on_iteration=on_iteration,
                    )
            except ValueError as error:  # a checkpoint that cannot be read
                raise click.ClickException(str(error)) from None
            statuses.add(run.status)
            console.print(Text(_result_line(run)), soft_wrap=True)
            if run.status == DIVERGED and run.iteration == 1:
                continue  # nothing finite to record
            written = files.write(run, name, where)
            console.print(Text(f"Records: {workspace.shown(written.path)}"), soft_wrap=True)
    if statuses & {DIVERGED, NOT_LEARNED}:
        return 1
    return PAUSED_STATUS if PAUSED in statuses else 0


def _setting(assignment: str) -> tuple[str, object]:
    """Return (name, value) of NAME=VALUE, with the type of the setting."""
    name, equals, text = assignment.partition("=")
    kinds = {one.name: type(one.default) for one in fields(Settings) if one.name != "seed"}
    if not equals or name not in kinds:
        raise click.UsageError(f"{assignment!r} sets none of: {', '.join(kinds)}")
    if kinds[name] is str:
        return name, text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kinds[name] is float and type(value) is int:
        value = float(value)
    if type(value) is not kinds[name]:
        raise click.UsageError(f"{name} is of type {kinds[name].__name__}, not {text!r}")
    return name, value


@contextmanager
def _progress(console: Console, settings: Settings) -> Iterator[Callable[[Run], None]]:
    """Show a progress bar on a terminal; yield the function to call after every iteration."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[progress]}"),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        label = f"{settings.model}, T = {settings.steps}, seed {settings.seed}"
        task = bar.add_task(label, total=settings.iterations, progress="")

        def on_iteration(run: Run) -> None:
            recent = run.history[-20:]
            accuracy = sum(row.accuracy for row in recent) / len(recent)
            progress = f"loss {recent[-1].loss:.3f}, accuracy {accuracy:.2f}"
            if run.steps < settings.steps:
                progress += f", {run.steps:,} steps"
            bar.update(task, completed=run.iteration, progress=progress)

        yield on_iteration


def _result_line(run: Run) -> str:
    """Describe in one line how a run ended."""
    settings = run.settings
    line = f"{settings.model}, T = {settings.steps}, seed {settings.seed}: {run.status}"
    line += f" after {run.iteration} iterations and {run.seconds:.1f} s"
    if run.status == DIVERGED:
        return f"{line}: the loss or the gradient was not finite"
    for name, at in {"paper": run.paper_at, "strict": run.strict_at}.items():
        line += f"; {name} criterion {'not met' if at is None else f'met at iteration {at}'}"
    return line
