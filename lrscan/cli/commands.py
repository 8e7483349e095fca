"""The command line. What a verb needs is imported when the verb is called."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from lrscan import __version__
from lrscan.cli.options import (
    DEVICES,
    Minutes,
    build_option,
    compiling_option,
    parameter_option,
    profile_option,
    record_option,
    report_usage_errors,
    tell_broken,
)
from lrscan.evidence import workspace
from lrscan.runner import catalog, streams


class _Commands(click.Group):
    """The commands, which say what they have to say in any encoding."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command."""
        streams.take_any_text()
        return super().main(*arguments, **options)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lrscan")
def main() -> None:
    """Linear recurrences in parallel over time: run the notebooks, take the measurements."""


@main.command()
@profile_option
@click.option(
    "--only",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Run the notebooks whose path begins so, such as learn/01. Repeatable.",
)
@parameter_option
@record_option
@build_option
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="How long a cell may run; default: the profile's timeout_s.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many notebooks may run at once; those that measure always run alone.",
)
@click.option("--fail-fast", is_flag=True, help="Begin no other notebook after one that failed.")
@click.option("--force", is_flag=True, help="Execute also the notebooks that have not changed.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the JUnit XML goes; default: build/junit.xml.",
)
@report_usage_errors
def run(
    profile: str,
    prefixes: tuple[str, ...],
    assignments: tuple[str, ...],
    record: bool,
    timeout: int | None,
    jobs: int,
    fail_fast: bool,
    force: bool,
    junit: Path | None,
) -> None:
    """Execute the notebooks that have changed, and draw the figures."""
    root = workspace.find_root()
    every = catalog.discover(root)
    values = catalog.load_profile(root, profile, every)
    selected = catalog.select(every, prefixes)
    if not selected:
        raise catalog.ParameterError("there is no notebook to run")
    tell_broken(notebook for notebook in every if notebook not in selected)
    parameters = catalog.override(values.parameters, selected, assignments)
    try:
        from lrscan.runner import suite
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed, and notebooks are executed with it: "
            'pip install "lrscan[notebooks]". To measure without it: lrscan bench.'
        ) from None
    sys.exit(
        suite.run(
            root,
            selected,
            parameters,
            profile=profile,
            timeout_s=timeout or values.timeout_s,
            record=record,
            jobs=jobs,
            fail_fast=fail_fast,
            force=force,
            junit=junit.resolve() if junit else None,
        )
    )


@main.command("list")
@profile_option
@report_usage_errors
def list_(profile: str) -> None:
    """List the notebooks with their parameters, and the experiments of `bench`."""
    from lrscan.experiments import registry

    root = workspace.find_root()
    every = catalog.discover(root)
    values = catalog.load_profile(root, profile, every)
    click.echo(f"Notebooks, with the parameters of the profile {profile}:")
    for notebook in every:
        click.echo(f"\n  {notebook.name}" + f": broken, {notebook.broken}" * bool(notebook.broken))
        if notebook.summary:
            click.echo(f"      {notebook.summary}")
        for name, value in values.parameters[notebook.name].items():
            click.echo(f"      {name} = {value!r}   ({catalog.type_name(value)})")
    click.echo("\nExperiments of lrscan bench:\n")
    for experiment in registry.load_all():
        click.echo(f"  {experiment.name}: {experiment.summary} ({experiment.notebook})")


@main.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@profile_option
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="|".join(DEVICES),
    help="What to measure; auto is the GPU where there is one.",
)
@parameter_option
@record_option
@build_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write records to DIR/<device>/.",
)
@click.option(
    "--minutes", type=Minutes(), help="Begin nothing after so long; --resume goes on from there."
)
@click.option("--resume", is_flag=True, help="Keep what these records hold, measure the rest.")
@report_usage_errors
def bench(**options: Any) -> None:
    """Take the measurements of the notebooks, without Jupyter; all of them by default.

    An experiment is given the parameters that its notebook has in the profile. On a GPU it ends
    with a table of what the kernels are asked for. Exits with 75 if time was up before all was
    measured.
    """
    from lrscan.cli import bench as measuring

    sys.exit(measuring.main(**options))


@main.command()
@click.option("--no-redraw", is_flag=True, help="Compare hashes only; draw nothing again.")
@build_option
@report_usage_errors
def verify(no_redraw: bool) -> None:
    """Find any changed byte in figures and records, and draw the figures again."""
    from lrscan.runner import verify

    sys.exit(verify.run(workspace.find_root(), redraw=not no_redraw, say=click.echo))


@main.command()
@build_option
@report_usage_errors
def doctor() -> None:
    """Tell what this machine has, test every algorithm on it, and say how to mend what is wrong."""
    from lrscan.cli import doctor

    try:
        folder = workspace.build_folder()
    except workspace.WorkspaceError:  # an installed package
        folder = Path.cwd()
    sys.exit(doctor.run(folder))


@main.group()
def campaign() -> None:
    """Measure on a GPU all that is to be measured, within given minutes, and bring it home."""


@campaign.command("run")
@click.option(
    "--minutes",
    type=float,
    default=9.5,
    show_default=True,
    metavar="N",
    help="How long it may take, all in all.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build", "campaign"),
    show_default=True,
    metavar="DIR",
    help="The result folder. What it holds is gone on from.",
)
@click.option(
    "--device",
    default="cuda",
    show_default=True,
    metavar="cuda|cpu",
    help="What to measure; cpu is a rehearsal, in small.",
)
@click.option(
    "--resume",
    "earlier",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Go on from this result, a folder or an archive.",
)
@click.option(
    "--commit",
    metavar="SHA",
    help="What is measured, where there is no git: 40 digits, and -dirty after them if the files "
    "were changed.",
)
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="What `campaign kit` made: kernels that need no compiling, and packages.",
)
@click.option("--only", multiple=True, metavar="PHASE", help="This phase alone. Repeatable.")
@click.option("--dry-run", is_flag=True, help="Print the plan, with reckoned times on an H100.")
@click.option(
    "--calls",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="With --dry-run: so many calls, each of these minutes.",
)
@report_usage_errors
def campaign_run(dry_run: bool, calls: int, **options: Any) -> None:
    """Work down the phases, the most valuable first.

    The same command again goes on with what is missing. Exits with 0 if all was finished, 75 if
    something is left, 1 if a phase failed.
    """
    began = time.monotonic()  # importing torch is part of the minutes
    from lrscan.campaign import plan
    from lrscan.campaign.run import Campaign

    if dry_run:
        lines, fits = plan.table(options["minutes"], calls)
        click.echo("\n".join(lines))
        sys.exit(0 if fits else 1)
    if calls > 1:
        raise click.UsageError("--calls is for --dry-run: a command is one call")
    sys.exit(Campaign(**options, began=began, say=click.echo).run())


@campaign.command("kit")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build", "kit"),
    show_default=True,
    metavar="DIR",
    help="Where it goes.",
)
@click.option(
    "--cuda",
    "architecture",
    default="9.0",
    show_default=True,
    metavar="ARCH",
    help="The GPU's compute capability.",
)
@click.option(
    "--processors",
    type=click.IntRange(min=1),
    default=132,
    show_default=True,
    metavar="N",
    help="The GPU's multiprocessors.",
)
@click.option(
    "--wheels/--no-wheels",
    default=True,
    help="Fetch other implementations to measure beside ours, or not.",
)
@click.option(
    "--python",
    default="3.12",
    show_default=True,
    metavar="VERSION",
    help="The Python of the other machine.",
)
@compiling_option
@report_usage_errors
def campaign_kit(**options: Any) -> None:
    """Compile here, with no GPU, the kernels that the phases launch there."""
    from lrscan.campaign import kit

    sys.exit(kit.make(**options, say=click.echo))


@campaign.command("merge")
@click.argument("source", type=click.Path(path_type=Path), metavar="RESULT")
@click.option("--accept-dirty", is_flag=True, help="Take a result of a tree with changes.")
@click.option("--replace", is_flag=True, help="Take times also where they are fewer than before.")
@click.option("--draw/--no-draw", default=True, help="Draw the figures, or not.")
@report_usage_errors
def campaign_merge(source: Path, **options: Any) -> None:
    """Check a result, merge its records into figures/, draw, and say which claims changed."""
    from lrscan.campaign.merge import merge

    sys.exit(merge(source, **options, say=click.echo))


@main.command()
@click.option(
    "--cuda",
    "architectures",
    multiple=True,
    metavar="ARCH",
    help="Compile CUDA kernels for this architecture, such as 9.0, with or without a GPU; "
    "default: for the GPUs that are here. Repeatable.",
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    default=("float32",),
    show_default=True,
    metavar="NAME",
    help="For tensors of this dtype. Repeatable.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the CUDA kernels there, to take along: LRSCAN_KERNELS names the folder.",
)
@compiling_option
@click.option("--cpu/--no-cpu", default=True, help="Compile CPU kernels too, or not.")
@report_usage_errors
def warmup(**options: Any) -> None:
    """Compile the common kernels ahead, for containers and classrooms.

    They are kept, and the first call of every common kind of tensor no longer waits.
    """
    from lrscan.campaign import warmup

    sys.exit(warmup.run(**options, say=click.echo))


@main.command()
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the run, such as steps=1024; --settings lists them. Repeatable.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0),
    default=(0,),
    show_default=True,
    help="A run for each. Repeatable.",
)
@click.option("--settings", "listing", is_flag=True, help="List the settings and their defaults.")
@click.option("--name", default="problem_2b", show_default=True, help="The records' name.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="|".join(DEVICES),
    help="Where to train; auto is the GPU where there is one.",
)
@click.option(
    "--checkpoints",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where runs are kept and resumed from; default: build/checkpoints.",
)
@click.option(
    "--minutes", type=Minutes(), help="Pause after so long; the same command goes on from there."
)
@click.option(
    "--graph/--no-graph", default=None, help="Replay steps as a CUDA graph; default: on a GPU."
)
@record_option
@build_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write records to DIR/<device>/.",
)
@report_usage_errors
def train(**options: Any) -> None:
    """Train on the long-memory task, or go on with a run that was paused or killed.

    Exits with 1 if a run diverged or did not learn, with 75 if it was paused.
    """
    from lrscan.cli import training

    sys.exit(training.main(**options))
