"""Kit for a campaign on a machine that has no network and no time to compile.

A kit holds::

    kernels/   every CUDA kernel that the phases launch, as machine code for one architecture
    wheels/    packages of other implementations, to compare with
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click

from lrscan.campaign import warmup
from lrscan.campaign.store import CampaignError

# Only packages whose installation compiles nothing. JAX is missing because it is too large.
RIVALS = ("accelerated-scan==0.3.1", "torchlpc==0.6")
MOST_WHEELS_BYTES = 40 * 2**20
# Every process that compiles calls this function, given by name, to get the kernels.
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
    """Fill a folder for ``campaign run --kit``. Kernels in it that are up to date are kept.

    Args:
        out:          the folder
        architecture: the GPU's compute capability, such as "9.0"
        processors:   the GPU's number of streaming multiprocessors: 132 for an H100 or H200
        wheels:       whether to download the packages ``RIVALS``, which needs a network
        python:       the version of Python on the GPU machine, for the packages
        jobs:         the number of processes that compile; None: one per core
        say:          called with each line of output

    Returns:
        The exit status, 0.

    Raises:
        CampaignError: a package could not be downloaded, or the packages are too large
        lrscan.campaign.warmup.WarmupError: the architecture is not supported, or there are no
            compilers
    """
    wanted = warmup.capability(architecture)
    warmup.check_compilers()
    from lrscan.cuda.machine_code import file_name

    folder, which = out / "kernels", (NEEDED, (processors,))
    compiled, kept = warmup.compile_all(*which, wanted, folder, jobs, _bar("kernels"))
    current = {f"{file_name(k, wanted)}.cubin" for k in warmup.catalogue(*which).values()}
    for path in folder.glob("*.cubin"):
        if path.name not in current:  # compiled from other sources
            path.unlink()
    size = sum(path.stat().st_size for path in folder.glob("*.cubin"))
    say(
        f"{len(current)} kernels for {wanted[0]}.{wanted[1]}, {size / 2**20:.1f} MiB: {compiled} "
        f"compiled, {kept} already present"
    )
    if wheels:
        _fetch(out / "wheels", python)
        found = sorted((out / "wheels").glob("*.whl"))
        size = sum(path.stat().st_size for path in found)
        if size > MOST_WHEELS_BYTES:
            raise CampaignError(
                f"the packages take {size / 2**20:.0f} MiB, more than the "
                f"{MOST_WHEELS_BYTES / 2**20:.0f} MiB allowed; leave them out with --no-wheels"
            )
        say(f"{', '.join(path.name for path in found)}: {size / 2**20:.2f} MiB")
    say(f"Copy {out} to the GPU machine and run there: lrscan campaign run --kit {out}")
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
        raise CampaignError(
            f"pip could not download {', '.join(RIVALS)}: {' '.join(why)} "
            "(without these packages: --no-wheels)"
        )


def _bar(what: str) -> Callable[[int, int], None]:
    """Return a callback that shows the progress on a terminal, and nothing elsewhere."""
    shown = sys.stderr.isatty()

    def on_each(done: int, of: int) -> None:
        if shown:
            click.echo(f"\r{done} of {of} {what}" + "\n" * (done == of), nl=False, err=True)

    return on_each
