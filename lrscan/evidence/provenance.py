"""Provenance of a measurement: device, driver, versions, threads, commit and parameters.

Provenance never holds a host name, a user name or a path. torch is imported only where it is
needed, because the runner asks for no more than the date and the commit and should not wait for it.
"""

import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscan.core.versions import package_version
from lrscan.evidence import origin, workspace

if TYPE_CHECKING:
    import torch

__all__ = ["collect", "device_label", "device_slug", "resolve_device", "usable_cores"]

PACKAGES = (
    "torch",
    "numba",
    "numba-cuda",
    "llvmlite",
    "numpy",
    "triton",
    "cuda-core",
    "cuda-bindings",
    "nvidia-cuda-nvcc",
    "nvidia-nvjitlink",
)


def resolve_device(device: "torch.device | str") -> "torch.device":
    """Return the torch device that ``device`` names; "auto" is a GPU if there is one.

    Raises:
        ValueError: ``device`` is not "auto", "cpu" or a CUDA device, or there is no such GPU

    Example:
        >>> from lrscan.evidence.provenance import resolve_device
        >>> resolve_device("cpu")
        device(type='cpu')
        >>> resolve_device("tpu")
        Traceback (most recent call last):
            ...
        ValueError: device must be "auto", "cpu" or "cuda", not 'tpu'
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {str(device)!r}')
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r}: torch sees {torch.cuda.device_count()} GPUs")
    return resolved


def device_slug(device: "torch.device | str") -> str:
    """Return a device's name for paths, such as "cpu-2-core" or "h100-80gb-hbm3".

    Example:
        >>> from lrscan.evidence.provenance import device_slug
        >>> device_slug("cpu")
        'cpu-...-core'
    """
    device = resolve_device(device)
    if device.type == "cpu":
        return f"cpu-{usable_cores()}-core"
    name = device_label(device).lower().replace("nvidia", "")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def device_label(device: "torch.device | str") -> str:
    """Return a device's name for figures, such as "CPU, 2 cores, AMD EPYC" or "NVIDIA H200".

    Example:
        >>> from lrscan.evidence.provenance import device_label
        >>> device_label("cpu")
        'CPU, ... core...'
    """
    device = resolve_device(device)
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    cores = usable_cores()
    return ", ".join(filter(None, ["CPU", f"{cores} core{'s' * (cores > 1)}", _cpu_model()]))


def hardware() -> str:
    """Describe the processor, the GPUs and their driver in one line, without importing torch."""
    gpus = _nvidia_smi("name,driver_version")
    return "; ".join([f"{usable_cores()} cores, {_cpu_model()}", *(gpus or [])])


def usable_cores() -> int:
    """Return how many cores this process may use.

    That is the number of cores in its affinity mask, or its container's CPU quota if that is lower.

    Example:
        >>> import os
        >>> from lrscan.evidence.provenance import usable_cores
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = (len(affinity(0)) if affinity else os.cpu_count()) or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores


def requirements(name: str = "lrscan") -> list[str]:
    """Return the packages that an installed package requires, including those of its extras."""
    try:
        asked = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # a source tree that was never installed
        return []
    return [found[0] for one in asked if (found := re.match(r"[A-Za-z0-9][\w.-]*", one))]


def collect(
    device: "torch.device | str",
    parameters: Mapping[str, Any],
    seed: int,
    profile: str | None = None,
) -> dict[str, Any]:
    """Collect all that is needed to judge and to repeat a measurement taken here and now.

    Args:
        device: the device that was measured
        parameters: the parameters of the measurement
        seed: the seed of its inputs
        profile: the profile; None stands for the profile of this run, if there is one

    Returns:
        A dictionary of JSON values. ``commit`` and ``dirty`` are None without git; ``driver``,
        ``cuda`` and ``capability`` are None on a CPU.

    Example:
        >>> from lrscan.evidence import provenance
        >>> found = provenance.collect("cpu", {"lengths": [16, 64]}, seed=0)
        >>> found["device_type"], found["parameters"], found["seed"]
        ('cpu', {'lengths': [16, 64]}, 0)
        >>> sorted(found["threads"])
        ['numba', 'torch']
    """
    import torch

    device = resolve_device(device)
    versions = {name: package_version(name) for name in ("lrscan", *PACKAGES)}
    gpu = device.type == "cuda"
    commit, dirty = git_state()
    return {
        "device": device_slug(device),
        "device_label": device_label(device),
        "device_type": device.type,
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)) if gpu else None,
        "driver": driver_version() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()}
        | {name: version for name, version in versions.items() if version},
        "threads": {"torch": torch.get_num_threads(), "numba": _numba_threads()},
        "parameters": dict(parameters),
        "seed": seed,
        "profile": workspace.profile() if profile is None else profile,
        "commit": commit,
        "dirty": dirty,
        "measured_at": utc_now(),
    }


def utc_now() -> str:
    """Return the date and time in UTC, such as 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def git_state() -> tuple[str | None, bool | None]:
    """Return the project's commit, and True if its sources differ from the commit.

    A run's own output (``build/``, ``figures/``) does not count as a difference. Nor does a new
    file outside the package and the notebooks, such as a folder with results. Without git,
    ``LRSCAN_COMMIT`` names the commit, in the form of
    ``git describe --always --abbrev=40 --dirty``. Without that variable the result is (None, None).

    Raises:
        WorkspaceError: the project's own package differs from the one that runs
    """
    try:
        root = workspace.find_root()
    except workspace.WorkspaceError:
        return _commit_from_variable()
    origin.check(root)
    try:
        if Path(git(root, "rev-parse", "--show-toplevel").strip()).resolve() != root.resolve():
            return _commit_from_variable()  # the project is inside another repository
        commit = git(root, "rev-parse", "HEAD").strip()
        status = git(root, "status", "--porcelain", "-uall", "--", ".", ":!build", ":!figures")
    except (OSError, subprocess.SubprocessError):
        return _commit_from_variable()
    new = ("?? lrscan/", "?? notebooks/")
    changed = [line for line in status.splitlines() if line[:2] != "??" or line.startswith(new)]
    return commit, bool(changed)


def _commit_from_variable() -> tuple[str | None, bool | None]:
    text = os.environ.get("LRSCAN_COMMIT", "")
    found = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", text)
    return (found[1], bool(found[2])) if found else (None, None)


def git(root: Path, *arguments: str) -> str:
    """Return the output of a git command in a checkout, whoever owns the checkout."""
    # git refuses to read another user's checkout, because its configuration can run commands. Here
    # that adds no risk: the code that runs comes from the same checkout.
    safe = f"safe.directory={root.resolve()}"
    command = ["git", "-c", safe, "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def _cpu_model() -> str:
    """Return the processor's name without trademark signs, core count and clock rate."""
    name = ""
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            name = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=10
            ).stdout
        elif platform.system() == "Linux":
            found = re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.M)
            name = found[1] if found else ""
    except (OSError, subprocess.SubprocessError):
        pass
    name = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|\d+-Core|@.*", "", name, flags=re.I)
    return " ".join(name.split()) or platform.machine()


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, which torch does not report; None without one."""
    found = _nvidia_smi("driver_version")
    return found[0] if found else None


def _nvidia_smi(fields: str) -> list[str] | None:
    """Return one line per GPU; None without a driver."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _numba_threads() -> int:
    # numba.get_num_threads() would start the thread pool, which must not exist before a fork.
    from numba.core import config

    return vars(config)["NUMBA_NUM_THREADS"]
