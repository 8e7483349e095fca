"""Commands of lrscan. Each imports what it needs only when it is called, so --help is fast."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from lrscan import __version__
from lrscan.cli.options import (
    FOLDER,
    Minutes,
    build_option,
    compiling_option,
    device_option,
    parameter_option,
    profile_option,
    record_option,
    records_option,
    report_broken,
    report_usage_errors,
)
from lrscan.evidence import workspace
from lrscan.runner import catalog, streams


class _Commands(click.Group):
    """Group of commands whose output may hold any text, whatever the terminal's encoding."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command."""
        streams.take_any_text()
        return super().main(*arguments, **options)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lrscan")
def main() -> None:
    """Linear recurrences in parallel over time: run the notebooks, measure, train.

    All commands except doctor and warmup need a clone of the project's repository.
    """


@main.command()
@profile_option
@click.option(
    "--only",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Run only notebooks whose path starts with PREFIX, such as learn/01. Repeatable.",
)
@parameter_option
@record_option
@build_option
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Time limit of each cell; default: timeout_s of the profile.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of notebooks to run at once. Notebooks that measure always run alone.",
)
@click.option("--fail-fast", is_flag=True, help="Start no more notebooks after one has failed.")
@click.option("--force", is_flag=True, help="Execute notebooks that have not changed, too.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for the report in JUnit XML; default: build/junit.xml.",
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
    """Execute the notebooks that have changed and draw their figures."""
    root = workspace.find_root()
    every = catalog.discover(root)
    values = catalog.load_profile(root, profile, every)
    selected = catalog.select(every, prefixes)
    if not selected:
        raise catalog.ParameterError("there is no notebook to run")
    report_broken(notebook for notebook in every if notebook not in selected)
    parameters = catalog.override(values.parameters, selected, assignments)
    try:
        from lrscan.runner import suite
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed, but notebooks need it to run. Install it with: "
            'pip install "lrscan[notebooks]". Or measure without it: lrscan bench.'
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
    """List the notebooks with their parameters, and the experiments."""
    from lrscan.experiments import registry

    root = workspace.find_root()
    every = catalog.discover(root)
    values = catalog.load_profile(root, profile, every)
    click.echo(f"Notebooks, with their parameters in the profile {profile}:")
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
@device_option
@parameter_option
@record_option
@build_option
@records_option
@click.option(
    "--minutes",
    type=Minutes(),
    help="Start no new measurement after this many minutes. Continue later with --resume.",
)
@click.option(
    "--resume", is_flag=True, help="Keep the measurements already recorded; take the missing ones."
)
@report_usage_errors
def bench(**options: Any) -> None:
    """Take the measurements of the notebooks, without Jupyter.

    Runs the named experiments, or all of them; lrscan list shows their names. An experiment uses
    the parameters that its notebook has in the profile. On a GPU, the output ends with a table of
    the kernels' performance targets. Exits with 75 if time ran out before everything was measured.
    """
    from lrscan.cli import bench as measuring

    sys.exit(measuring.main(**options))


@main.command()
@click.option("--no-redraw", is_flag=True, help="Compare hashes only; do not redraw.")
@build_option
@report_usage_errors
def verify(no_redraw: bool) -> None:
    """Check figures and records byte by byte, then redraw the figures.

    The hashes of figures and records, in figures/ and build/, are compared with the manifests. If
    they agree, the committed figures are drawn again from their records and compared, except those
    that other versions of packages drew. Exits with 1 if there is a problem.
    """
    from lrscan.runner import verify

    sys.exit(verify.run(workspace.find_root(), redraw=not no_redraw, say=click.echo))


@main.command()
@build_option
@report_usage_errors
def doctor() -> None:
    """Inspect this machine, test every algorithm, and suggest fixes.

    Exits with 1 if there is a problem.
    """
    from lrscan.cli import doctor

    try:
        folder = workspace.build_folder()
    except workspace.WorkspaceError:  # an installed package
        folder = Path.cwd()
    sys.exit(doctor.run(folder))


@main.group()
def campaign() -> None:
    """Take all measurements on a GPU within a time limit.

    run checks and times the kernels phase by phase and writes a result folder. merge brings a
    result into figures/. kit prepares a run on a machine without compiler or network.
    """


@campaign.command("run")
@click.option(
    "--minutes",
    type=float,
    default=9.5,
    show_default=True,
    metavar="N",
    help="Time limit of the whole command, in minutes.",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("build", "campaign"),
    show_default=True,
    metavar="DIR",
    help="Result folder. If it holds a result, the campaign continues from it.",
)
@click.option(
    "--device",
    default="cuda",
    show_default=True,
    metavar="cuda|cpu",
    help="Device to measure; cpu is a small rehearsal.",
)
@click.option(
    "--resume",
    "earlier",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Continue from this earlier result, a folder or an archive.",
)
@click.option(
    "--commit",
    metavar="SHA",
    help="Commit of the files, needed where there is no git: 40 digits, followed by -dirty if the "
    "files were changed.",
)
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that lrscan campaign kit made: compiled kernels and packages.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PHASE",
    help="Run only this phase; --dry-run lists them all. Repeatable.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only print the plan, with estimated times on an H100."
)
@click.option(
    "--calls",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="With --dry-run: plan N calls of this command, each of --minutes.",
)
@report_usage_errors
def campaign_run(dry_run: bool, calls: int, **options: Any) -> None:
    """Run the phases, the most valuable first.

    Run the same command again to continue with unfinished phases. Exits with 0 if everything is
    finished, 75 if something is left, and 1 if a phase failed or the result cannot be written.
    With --dry-run, exits with 1 if the plan does not fit into the minutes.
    """
    began = time.monotonic()  # importing torch is part of the minutes
    from lrscan.campaign import plan
    from lrscan.campaign.run import Campaign

    if dry_run:
        lines, fits = plan.table(options["minutes"], calls)
        click.echo("\n".join(lines))
        sys.exit(0 if fits else 1)
    if calls > 1:
        raise click.UsageError("--calls only works with --dry-run: this command is a single call")
    sys.exit(Campaign(**options, began=began, say=click.echo).run())


@campaign.command("kit")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("build", "kit"),
    show_default=True,
    metavar="DIR",
    help="Folder of the kit.",
)
@click.option(
    "--cuda",
    "architecture",
    default="9.0",
    show_default=True,
    metavar="ARCH",
    help="Compute capability of the GPU.",
)
@click.option(
    "--processors",
    type=click.IntRange(min=1),
    default=132,
    show_default=True,
    metavar="N",
    help="Number of multiprocessors of the GPU.",
)
@click.option(
    "--wheels/--no-wheels",
    default=True,
    help="Whether to download other implementations to compare with; default: yes.",
)
@click.option(
    "--python",
    default="3.12",
    show_default=True,
    metavar="VERSION",
    help="Version of Python on the GPU machine, for the packages.",
)
@compiling_option
@report_usage_errors
def campaign_kit(**options: Any) -> None:
    """Compile a campaign's kernels on a machine without a GPU.

    Copy the kit to the GPU machine and pass its folder to lrscan campaign run --kit. The campaign
    then needs no compiler, no network, and no time to compile.
    """
    from lrscan.campaign import kit

    sys.exit(kit.make(**options, say=click.echo))


@campaign.command("merge")
@click.argument("source", type=click.Path(path_type=Path), metavar="RESULT")
@click.option(
    "--accept-dirty",
    is_flag=True,
    help="Accept a result measured with uncommitted changes; its records say so.",
)
@click.option("--replace", is_flag=True, help="Replace recorded timings even by fewer new ones.")
@click.option("--draw/--no-draw", default=True, help="Whether to redraw the figures; default: yes.")
@report_usage_errors
def campaign_merge(source: Path, **options: Any) -> None:
    """Merge a campaign's records into figures/ and redraw the figures.

    RESULT is a result folder or its archive, campaign.zip. It is checked first; if it is refused,
    nothing changes. The output ends with the claims whose verdict or numbers changed.
    """
    from lrscan.campaign.merge import merge

    sys.exit(merge(source, **options, say=click.echo))


@main.command()
@click.option(
    "--cuda",
    "architectures",
    multiple=True,
    metavar="ARCH",
    help="Compile CUDA kernels for this architecture, such as 9.0; needs no GPU. Default: the "
    "GPUs of this machine. Repeatable.",
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    default=("float32",),
    show_default=True,
    metavar="NAME",
    help="Compile for tensors of this dtype. Repeatable.",
)
@click.option(
    "--out",
    type=FOLDER,
    metavar="DIR",
    help="Write the CUDA kernels to this folder, for use on another machine, where LRSCAN_KERNELS "
    "names it.",
)
@compiling_option
@click.option(
    "--cpu/--no-cpu", default=True, help="Whether to compile CPU kernels, too; default: yes."
)
@report_usage_errors
def warmup(**options: Any) -> None:
    """Compile common kernels ahead of time.

    For containers and classrooms: compiled kernels are kept on disk, so first calls on common
    shapes and layouts of tensors do not wait for a compiler.
    """
    from lrscan.campaign import warmup

    sys.exit(warmup.run(**options, say=click.echo))


@main.command()
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting, such as steps=1024; --settings lists them all. Repeatable.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0),
    default=(0,),
    show_default=True,
    help="Train one run per seed. Repeatable.",
)
@click.option("--settings", "listing", is_flag=True, help="List the settings and their defaults.")
@click.option("--name", default="problem_2b", show_default=True, help="Name of the records.")
@device_option
@click.option(
    "--checkpoints",
    type=FOLDER,
    metavar="DIR",
    help="Folder of the checkpoints, from which runs resume; default: build/checkpoints.",
)
@click.option(
    "--minutes",
    type=Minutes(),
    help="Pause after this many minutes; the same command resumes the runs.",
)
@click.option(
    "--graph/--no-graph",
    default=None,
    help="Whether to replay steps as a CUDA graph; default: yes on a GPU.",
)
@record_option
@build_option
@records_option
@report_usage_errors
def train(**options: Any) -> None:
    """Train a model on the long-memory task, problem 2b.

    A run that was paused or killed resumes from its last checkpoint. Exits with 1 if a run
    diverged or did not learn, and with 75 if one was paused.
    """
    from lrscan.cli import training

    sys.exit(training.main(**options))
