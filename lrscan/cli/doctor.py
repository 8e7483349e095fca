"""Check of this machine: what it has, what is wrong, and one command that fixes each problem."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lrscan.core.versions import package_version
from lrscan.evidence import provenance, workspace

LEAST_CAPABILITY = (7, 5)
# The oldest Linux driver for kernels built by each major version of CUDA (NVIDIA, CUDA
# Compatibility, minor version compatibility).
LEAST_DRIVER = {12: (525, 60, 13), 13: (580, 0, 0)}
PYTHONS = ((3, 11), (3, 14))
_COPIED_BYTES = 256 * 2**20
GOOD, NOTE, PROBLEM = "ok", "note", "problem"
STYLES = {GOOD: "green", NOTE: "yellow", PROBLEM: "bold red"}


@dataclass
class MachineFacts:
    """Facts about a machine. A version is text, or None if the package is not installed."""

    python: tuple[int, int, int] = sys.version_info[:3]
    versions: dict[str, str | None] = field(default_factory=dict)
    torch_cuda: str | None = None
    driver: str | None = None
    # (name, compute capability, memory in GiB) of each GPU
    gpus: list[tuple[str, tuple[int, int], float]] = field(default_factory=list)
    visible: str | None = None  # CUDA_VISIBLE_DEVICES
    memory_gib: float = 0.0
    free_gib: float = 0.0
    build: str = "build"  # the folder that runs write to
    unwritable: str | None = None  # why it cannot be written


@dataclass
class Diagnosis:
    """One line of the report. A problem comes with the command that fixes it."""

    what: str
    found: str
    status: str = GOOD
    fix: str | None = None


PACKAGES = (
    "lrscan",
    "torch",
    "numba",
    "numba-cuda",
    "numpy",
    "matplotlib",
    "papermill",
    "ipykernel",
)
# Packages whose major version is that of the CUDA toolkit that they belong to.
TOOLKIT = ("cuda-toolkit", "nvidia-cuda-nvcc", "nvidia-nvjitlink", "nvidia-nvvm", "cuda-bindings")


def run(folder: Path) -> int:
    """Print the report on this machine and return the exit status: 1 if there is a problem."""
    machine = inspect(folder)
    diagnoses = judge(machine)
    if machine.versions["torch"] and machine.versions["numba"]:
        diagnoses += self_test(["cpu"] + ["cuda"] * bool(machine.gpus))
    console = Console(highlight=False)
    for one in diagnoses:
        status = Text(f"{one.status:8}", STYLES[one.status])
        line = status.append(f"{one.what:18} {one.found}", "default")
        console.print(line, soft_wrap=True)
        if one.fix:
            console.print(Text(f"{'':27}fix: {one.fix}"), soft_wrap=True)
    problems = sum(one.status == PROBLEM for one in diagnoses)
    noun = "problem" if problems == 1 else "problems"
    console.print(f"{problems} {noun} found." if problems else "No problems found.")
    return 1 if problems else 0


def inspect(folder: Path) -> MachineFacts:
    """Collect the facts about this machine; runs write to ``folder``."""
    versions = {name: package_version(name) for name in (*PACKAGES, *TOOLKIT)}
    for major in ("11", "12", "13"):  # names of the toolkit's older wheels end in the major version
        for name in ("nvidia-cuda-nvcc", "nvidia-nvjitlink"):
            if found := package_version(f"{name}-cu{major}"):
                versions[f"{name}-cu{major}"] = found
    machine = MachineFacts(
        versions=versions,
        driver=provenance.driver_version(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        memory_gib=_memory_gib(),
        free_gib=shutil.disk_usage(_nearest(folder)).free / 2**30,
        build=str(folder),
    )
    try:
        workspace.check_writable(_nearest(folder))
    except OSError as error:
        machine.unwritable = error.strerror
    if versions["torch"]:
        import torch

        machine.torch_cuda = torch.version.cuda
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            properties = torch.cuda.get_device_properties(index)
            capability = (properties.major, properties.minor)
            machine.gpus.append((properties.name, capability, properties.total_memory / 2**30))
    return machine


def judge(machine: MachineFacts) -> list[Diagnosis]:
    """Return the report on a machine: what was found, and what is wrong."""
    version = ".".join(map(str, machine.python))
    low, high = PYTHONS
    if low <= machine.python[:2] < high:
        diagnoses = [Diagnosis("Python", version)]
    else:
        diagnoses = [
            Diagnosis("Python", version, PROBLEM, "make distclean && make venv PYTHON=python3.12")
        ]
    for name in PACKAGES:
        found = machine.versions.get(name)
        if found:
            diagnoses.append(Diagnosis(name, found))
        elif name == "lrscan":
            diagnoses.append(Diagnosis(name, "not installed, running from a source tree", NOTE))
        elif name == "numba-cuda":
            diagnoses.append(Diagnosis(name, "not installed: CPU only", NOTE))
        elif name in ("papermill", "ipykernel"):
            fix = 'pip install -c constraints.txt -e ".[notebooks]"'
            diagnoses.append(Diagnosis(name, "not installed: notebooks cannot run", PROBLEM, fix))
        else:
            fix = "pip install -c constraints.txt -e ."
            diagnoses.append(Diagnosis(name, "not installed", PROBLEM, fix))
    diagnoses += _judge_cuda(machine)
    diagnoses.append(Diagnosis("memory", f"{machine.memory_gib:.1f} GiB"))
    if machine.free_gib < 1:
        free = Diagnosis("disk", f"{machine.free_gib:.2f} GiB free", PROBLEM, "make clean")
    else:
        free = Diagnosis("disk", f"{machine.free_gib:.0f} GiB free")
    diagnoses.append(free)
    if machine.unwritable:
        fix = "export LRSCAN_BUILD=/tmp/lrscan-build"
        found = f"{machine.build}: {machine.unwritable}"
        return [*diagnoses, Diagnosis("build folder", found, PROBLEM, fix)]
    return [*diagnoses, Diagnosis("build folder", machine.build)]


def _judge_cuda(machine: MachineFacts) -> list[Diagnosis]:
    diagnoses = []
    major = int(machine.torch_cuda.partition(".")[0]) if machine.torch_cuda else None
    built = f"CUDA {machine.torch_cuda}" if major else "the CPU"
    diagnoses.append(Diagnosis("torch built for", built))
    majors = {
        name: name.partition("-cu")[2] if "-cu1" in name else found.partition(".")[0]
        for name, found in machine.versions.items()
        if found and name.startswith(TOOLKIT)
    }
    wanted = str(major) if major else max(majors.values(), default="")
    if other := {name: found for name, found in majors.items() if found != wanted}:
        packages = ", ".join(f"{name} {found}" for name, found in other.items())
        fix = f'pip install --upgrade --force-reinstall "numba-cuda[cu{wanted}]>=0.30"'
        found = f"wrong version for CUDA {wanted}: {packages}"
        diagnoses.append(Diagnosis("CUDA toolkit", found, PROBLEM, fix))
    elif majors:
        diagnoses.append(Diagnosis("CUDA toolkit", ", ".join(sorted(set(majors.values())))))
    if machine.driver is None:
        return [*diagnoses, Diagnosis("GPU", "none found: everything runs on the CPU")]
    if major is None:
        fix = "pip install --force-reinstall -c constraints.txt torch"
        found = f"{machine.driver}, but this build of torch cannot use a GPU"
        return [*diagnoses, Diagnosis("driver", found, PROBLEM, fix)]
    if _numbers(machine.driver) < LEAST_DRIVER.get(major, (0,)):
        least = ".".join(map(str, LEAST_DRIVER[major]))
        fix = "conda env create -f environment.yml"  # conda chooses packages that fit the driver
        found = f"{machine.driver}, older than {least}, which CUDA {major} needs"
        return [*diagnoses, Diagnosis("driver", found, PROBLEM, fix)]
    diagnoses.append(Diagnosis("driver", machine.driver))
    for name, capability, gib in machine.gpus:
        found = f"{name}, compute capability {capability[0]}.{capability[1]}, {gib:.0f} GiB"
        if capability < LEAST_CAPABILITY:
            fix = "lrscan run -p device=cpu"
            found += ": too old, 7.5 or newer is needed"
            diagnoses.append(Diagnosis("GPU", found, PROBLEM, fix))
        else:
            diagnoses.append(Diagnosis("GPU", found))
    if not machine.gpus and machine.visible is not None:
        found = f"hidden: CUDA_VISIBLE_DEVICES is {machine.visible!r}"
        diagnoses.append(Diagnosis("GPU", found, NOTE))
    elif not machine.gpus:  # for example, after an update of the driver
        found = "there is a driver, but torch sees no GPU"
        diagnoses.append(Diagnosis("GPU", found, PROBLEM, "sudo reboot"))
    return diagnoses


def self_test(devices: list[str]) -> list[Diagnosis]:
    """Measure each device's copy bandwidth; compare each algorithm with a float64 loop."""
    import torch

    from lrscan.core.checks import ALGORITHMS

    diagnoses = []
    for name in devices:
        device = torch.device(name)
        diagnoses.append(_guard(f"{name} copy", partial(_bandwidth, device)))
        for algorithm in ALGORITHMS[device.type]:
            test = partial(_check_accuracy, device, algorithm)
            diagnoses.append(_guard(f"{name} {algorithm}", test))
    return diagnoses


def _guard(what: str, test: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(what, test())
    except Exception as error:  # any error here is a finding to report
        found = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Diagnosis(what, found, PROBLEM, "make distclean && make test")


def _bandwidth(device: Any) -> str:
    """Measure the bytes read plus written per second, as the median of copies in warm memory."""
    import torch

    from lrscan.experiments.timing import time_all

    source = torch.ones(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = {"copy": lambda: target.copy_(source)}
    median_ms = time_all(copies, device, 5)["copy"][1]
    return f"{2 * _COPIED_BYTES / median_ms / 1e6:.1f} GB/s"


def _check_accuracy(device: Any, algorithm: str) -> str:
    """Run an algorithm forward and backward, and compare its errors with the rounding bound."""
    import torch

    from lrscan import linear_recurrence
    from lrscan.core.reference import oracle
    from lrscan.experiments import inputs

    a, x, h0 = inputs.draw_inputs(1025, 7, torch.float32, device, 0)
    dh = inputs.draw_inputs(1025, 7, torch.float32, device, 1)[1]
    tensors = [tensor.clone().requires_grad_() for tensor in (a, x, h0)]
    h = linear_recurrence(*tensors, algorithm=algorithm)
    got = [h.detach(), *torch.autograd.grad(h, tensors, dh)]
    exact = oracle(a.cpu(), x.cpu(), h0.cpu(), dh.cpu())
    worst = max(
        ((one.cpu() - value).abs() / bound).max().item()
        for one, (value, bound) in zip(got, exact, strict=True)
    )
    if not worst <= 1:
        raise ArithmeticError(f"the largest error is {worst:.2g} times the rounding bound")
    return f"correct: the largest error is {worst:.2f} times the rounding bound"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _nearest(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next((one for one in (folder, *folder.parents) if one.exists()), folder)


def _memory_gib() -> float:
    """Return the memory that this process may use: the machine's, or its container's if lower."""
    if not hasattr(os, "sysconf") or platform.system() == "Windows":
        return float("nan")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such file, or "max": no limit
        pass
    return total / 2**30
