"""What a campaign takes along to a machine where no minute is for compilers, and no network.

A kit holds::

    kernels/   every CUDA kernel that the phases launch, as machine code for one architecture
    wheels/    other implementations to measure beside ours, as packages
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click

from lrscan.campaign import warmup
from lrscan.campaign.store import CampaignError

# Those that need nothing compiled at their installation; JAX is too large to take along.
RIVALS = ("accelerated-scan==0.3.1", "torchlpc==0.6")
MOST_WHEELS_BYTES = 40 * 2**20
# What finds the kernels, by its name, for the processes that compile them.
NEEDED = "lrscan.campaign.kernels:needed"


def make(
    out: Path,
    *,
    architecture: str,
    processors: int,
    wheels: bool,
    python: str,
    jobs: int | None,
    say: Callable[[str], None],
) -> int:
    """Fill a folder for ``campaign run --kit``; what is there and still right stays.

    Args:
        out:          the folder
        architecture: of the GPU, such as "9.0"
        processors:   its streaming multiprocessors: 132 of an H100 or H200
        wheels:       whether to fetch the packages of RIVALS, which needs a network
        python:       the version of Python there, for the packages
        jobs:         processes that compile; None: one for each core
        say:          prints a line

    Raises:
        CampaignError: a package could not be fetched
        lrscan.campaign.warmup.WarmupError: no such architecture, or no compilers
    """
    wanted = warmup.capability(architecture)
    warmup.check_compilers()
    from lrscan.cuda.machine_code import file_name

    folder, which = out / "kernels", (NEEDED, (processors,))
    compiled, kept = warmup.compile_all(*which, wanted, folder, jobs, _bar("kernels"))
    current = {f"{file_name(k, wanted)}.cubin" for k in warmup.catalogue(*which).values()}
    for path in folder.glob("*.cubin"):
        if path.name not in current:  # of other sources
            path.unlink()
    size = sum(path.stat().st_size for path in folder.glob("*.cubin"))
    say(
        f"{len(current)} kernels for {wanted[0]}.{wanted[1]}, {size / 2**20:.1f} MiB: {compiled} "
        f"compiled, {kept} were there"
    )
    if wheels:
        _fetch(out / "wheels", python)
        found = sorted((out / "wheels").glob("*.whl"))
        size = sum(path.stat().st_size for path in found)
        if size > MOST_WHEELS_BYTES:
            raise CampaignError(
                f"the packages weigh {size / 2**20:.0f} MiB, and {MOST_WHEELS_BYTES / 2**20:.0f} "
                "are allowed"
            )
        say(f"{', '.join(path.name for path in found)}: {size / 2**20:.2f} MiB")
    say(f"Take {out} along: lrscan campaign run --kit {out}")
    return 0


def _fetch(folder: Path, python: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        python,
        "--platform",
        "manylinux_2_28_x86_64",
        "--platform",
        "manylinux2014_x86_64",
        "-d",
        str(folder),
        *RIVALS,
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise CampaignError(f"pip could not fetch {', '.join(RIVALS)}: {' '.join(why)}")


def _bar(what: str) -> Callable[[int, int], None]:
    """A progress bar on a terminal."""
    shown = sys.stderr.isatty()

    def on_each(done: int, of: int) -> None:
        if shown:
            click.echo(f"\r{done} of {of} {what}" + "\n" * (done == of), nl=False, err=True)

    return on_each
