"""Where a number comes from: device, driver, versions, threads, commit, parameters.

Never a host name, a user or a path. torch is imported where it is needed: the runner asks
for the date and the commit alone, and should not wait for it.
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
    """The torch device that `device` names; "auto" is a GPU where there is one.

    Raises
    ------
    ValueError
        It is neither "auto", "cpu" nor a CUDA device, or no such GPU is there.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise ValueError(f'device is "auto", "cpu" or "cuda", not {str(device)!r}')
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r}: torch sees {torch.cuda.device_count()} GPUs")
    return resolved


def device_slug(device: "torch.device | str") -> str:
    """A device's name in paths: "cpu-2-core", "h100-80gb-hbm3"."""
    device = resolve_device(device)
    if device.type == "cpu":
        return f"cpu-{usable_cores()}-core"
    name = device_label(device).lower().replace("nvidia", "")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def device_label(device: "torch.device | str") -> str:
    """A device's name on figures: "CPU, 2 cores, AMD EPYC", "NVIDIA H200"."""
    device = resolve_device(device)
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    cores = usable_cores()
    return ", ".join(filter(None, ["CPU", f"{cores} core{'s' * (cores > 1)}", _cpu_model()]))


def hardware() -> str:
    """The processor, the GPUs and their driver, in a line; without torch, and so at once."""
    gpus = _nvidia_smi("name,driver_version")
    return "; ".join([f"{usable_cores()} cores, {_cpu_model()}", *(gpus or [])])


def usable_cores() -> int:
    """The cores this process may use: its affinity, and its container's quota if lower."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = (len(affinity(0)) if affinity else os.cpu_count()) or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores


def requirements(name: str = "lrscan") -> list[str]:
    """The packages that an installed one asks for, with all its extras."""
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
    """What is needed to judge and to repeat a measurement taken here and now.

    Arguments
    ---------
    device       what was measured
    parameters   the parameters of the measurement
    seed         the seed of its inputs
    profile      the profile; None: that of this run, if any

    Returns
    -------
    dict
        JSON values only. `commit` and `dirty` are None without git; `driver`, `cuda` and
        `capability` are None on a CPU.
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
    """The date and time in UTC, as 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def git_state() -> tuple[str | None, bool | None]:
    """The project's commit, and whether its sources differ from it.

    What a run itself writes (`build/`, `figures/`) does not count as a difference, nor does a new
    file outside the package and the notebooks: a folder with results, say. Without git it is what
    `LRSCAN_COMMIT` says, as `git describe --always --abbrev=40 --dirty` would; without that
    (None, None).

    Raises
    ------
    WorkspaceError
        The project has a package of its own, and another one runs.
    """
    try:
        root = workspace.find_root()
    except workspace.WorkspaceError:
        return _told_commit()
    origin.check(root)
    try:
        if Path(git(root, "rev-parse", "--show-toplevel").strip()).resolve() != root.resolve():
            return _told_commit()  # the project lies inside somebody else's repository
        commit = git(root, "rev-parse", "HEAD").strip()
        status = git(root, "status", "--porcelain", "-uall", "--", ".", ":!build", ":!figures")
    except (OSError, subprocess.SubprocessError):
        return _told_commit()
    new = ("?? lrscan/", "?? notebooks/")
    changed = [line for line in status.splitlines() if line[:2] != "??" or line.startswith(new)]
    return commit, bool(changed)


def _told_commit() -> tuple[str | None, bool | None]:
    told = os.environ.get("LRSCAN_COMMIT", "")
    found = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", told)
    return (found[1], bool(found[2])) if found else (None, None)


def git(root: Path, *arguments: str) -> str:
    """What git says in a checkout, whoever owns it."""
    # A checkout of somebody else: git would not read it, for it may hold commands of theirs. The
    # code that runs here is theirs already.
    safe = f"safe.directory={root.resolve()}"
    command = ["git", "-c", safe, "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def _cpu_model() -> str:
    """The processor's name without the decoration that vendors add."""
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
    """The NVIDIA driver's version, or None without one; torch does not tell it."""
    found = _nvidia_smi("driver_version")
    return found[0] if found else None


def _nvidia_smi(fields: str) -> list[str] | None:
    """A line a GPU; None without a driver."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _numba_threads() -> int:
    # numba.get_num_threads() would start the thread pool, which must not happen before a fork.
    from numba.core import config

    return vars(config)["NUMBA_NUM_THREADS"]
