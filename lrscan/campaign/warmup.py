"""Command ``lrscan warmup``: compilation of kernels ahead of time, so that first calls are fast.

CPU kernels are compiled by making calls of every common kind, for this machine's processor. CUDA
kernels are compiled for any architecture, without a GPU, by several processes.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscan.core import compilation
from lrscan.evidence import workspace

if TYPE_CHECKING:
    from lrscan.cuda.launch import Kernel

OLDEST = (7, 5)
# (shape, dim) of common tensors: time first, second and last, few columns and one column; each
# small, and so large that results are written past the cache.
COMMON = (
    ((300, 128), 0),
    ((16_384, 256), 0),
    ((8, 300, 64), 1),
    ((8, 2048, 256), 1),
    ((64, 300), 1),
    ((64, 65_536), 1),
    ((300, 1), 0),
    ((2**22, 1), 0),
    ((2000, 3), 0),
    ((2000, 4), 0),
    ((2**21, 4), 0),
)
H100_PROCESSORS = 132  # streaming multiprocessors


class WarmupError(workspace.WorkspaceError):
    """Error in a request to compile kernels, raised before anything is compiled."""


def run(
    architectures: Iterable[str],
    dtypes: Iterable[str],
    out: Path | None,
    jobs: int | None,
    cpu: bool,
    say: Callable[[str], None],
) -> int:
    """Compile common kernels; print how many were compiled and how many were already present.

    Args:
        architectures: CUDA architectures, such as "9.0"; empty: those of this machine's GPUs
        dtypes:        names of dtypes, such as "float32"
        out:           the folder for CUDA kernels, to use with ``LRSCAN_KERNELS`` on another
            machine; None: this machine's cache
        jobs:          the number of processes that compile CUDA kernels; None: one per core
        cpu:           whether to compile CPU kernels
        say:           called with each line of output

    Returns:
        The exit status, 0.

    Raises:
        WarmupError: an architecture or a dtype is not supported, or there is no compiler for CUDA
    """
    from lrscan.core.dtypes import KINDS

    dtypes = list(dict.fromkeys(dtypes))
    if unknown := [name for name in dtypes if name not in KINDS]:
        raise WarmupError(f"--dtype must be one of {', '.join(KINDS)}, not {unknown[0]!r}")
    wanted = [capability(text) for text in architectures]
    if not wanted:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        wanted = [torch.cuda.get_device_capability(index) for index in range(count)]
    if out is not None and not wanted:
        raise WarmupError("--out is for CUDA kernels: name an architecture, such as --cuda 9.0")
    wanted = list(dict.fromkeys(wanted))
    if wanted:
        check_compilers()
    for name in dtypes if cpu else ():
        began = time.perf_counter()
        with compilation.quiet():
            compiled, kept = warm_cpu(name)
        say(_report(f"CPU, {name}", compiled, kept, time.perf_counter() - began))
    for one in wanted:
        began = time.perf_counter()
        listed = f"{__name__}:common_kernels"
        compiled, kept = compile_all(listed, (dtypes,), one, out, jobs)
        target = f"CUDA {one[0]}.{one[1]}, {', '.join(dtypes)}"
        say(_report(target, compiled, kept, time.perf_counter() - began))
    if out is not None:
        say(
            f"The CUDA kernels are in {out}. To use them on another machine, copy the folder there "
            "and set LRSCAN_KERNELS to it."
        )
    return 0


def _report(target: str, compiled: int, kept: int, seconds: float) -> str:
    return f"{target}: {compiled} kernels compiled, {kept} already present ({seconds:.0f} s)"


def capability(text: str) -> tuple[int, int]:
    """Return the compute capability that "9.0", "90" or "sm_90" names.

    Raises:
        WarmupError: the text names no architecture, or one that is too old
    """
    found = re.fullmatch(r"(?:sm_)?(\d+?)\.?(\d)", text)
    if not found:
        raise WarmupError(f"a CUDA architecture is written like 9.0, not {text!r}")
    major, minor = int(found[1]), int(found[2])
    if (major, minor) < OLDEST:
        raise WarmupError(
            f"the CUDA architecture {major}.{minor} is too old: the oldest supported one is 7.5"
        )
    return major, minor


def check_compilers() -> None:
    """Raise WarmupError unless CUDA kernels can be compiled here."""
    try:
        from numba import cuda

        from lrscan.cuda import machine_code
        from lrscan.cuda.launch import Kernel
        from lrscan.cuda.memory import SIMULATED
        from lrscan.cuda.serial import NoSizing

        if SIMULATED:
            raise RuntimeError("Numba's CUDA simulator is on (NUMBA_ENABLE_CUDASIM)")

        def nothing(rows: Any, extents: Any, sizing: Any) -> None:
            cuda.syncthreads()  # type: ignore[call-arg]

        machine_code.compiled(Kernel(nothing, "nothing", NoSizing, 32), OLDEST)
    except Exception as error:
        words = " ".join(str(error).split())
        raise WarmupError(
            f"CUDA kernels cannot be compiled here: {type(error).__name__}: {words[:300]} "
            '(to install the compilers: pip install "lrscan[cu13]" nvidia-nvvm)'
        ) from None


def warm_cpu(dtype: str) -> tuple[int, int]:
    """Call the operator on common tensors; return (kernels compiled, kernels read from disk)."""
    import torch

    from lrscan import linear_recurrence, nn
    from lrscan.cpu import compile as compiling
    from lrscan.nn.fused import kernel_of

    before = compiling.tally.copy()
    kind = getattr(torch, dtype)
    for shape, dim in COMMON:
        a, x = (torch.zeros(shape, dtype=kind).requires_grad_() for _ in range(2))
        linear_recurrence(a, x, dim=dim).sum().backward()
    if dtype == "float32":
        for make in filter(kernel_of, nn.MODELS.values()):
            make(4, 16)(torch.zeros(300, 2, 4))[0].sum().backward()
    now = compiling.tally - before
    return now[compiling.COMPILED], now[compiling.KEPT]


def common_kernels(dtypes: Iterable[str]) -> dict[str, Kernel]:
    """Return the CUDA kernels of common calls, by name."""
    import torch

    from lrscan.cuda.launch import launch_both_ways, noted

    with noted(H100_PROCESSORS) as found:
        for dtype in dtypes:
            for shape, dim in COMMON:
                for algorithm in ("auto", "serial", "single_pass"):
                    launch_both_ways(shape, dim, getattr(torch, dtype), algorithm)
    return dict(found)


def compile_all(
    make: str,
    arguments: tuple[Any, ...],
    architecture: tuple[int, int],
    folder: Path | None,
    jobs: int | None = None,
    on_each: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Compile kernels for one architecture.

    Args:
        make:         "module:function", a function that returns the kernels by name. Every process
            calls it, since kernels cannot be pickled
        arguments:    the arguments of that function
        architecture: the compute capability, such as (9, 0)
        folder:       the folder for the kernels; None: this machine's cache
        jobs:         the number of processes; None: one per core
        on_each:      called after each kernel with (number done, number in total)

    Returns:
        (number of kernels compiled, number already present)
    """
    from lrscan.evidence.provenance import usable_cores

    names = list(catalogue(make, arguments))
    jobs = min(jobs or usable_cores(), len(names))
    task = (make, arguments, architecture, folder)
    # Spawned, not forked, since this process may have threads of torch and Numba.
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, start, _one_thread) as pool:
        futures = [pool.submit(_compile, *task, name) for name in names]
        compiled = []
        for done, future in enumerate(futures, 1):
            compiled.append(future.result())
            on_each(done, len(names))
    return sum(compiled), len(compiled) - sum(compiled)


_known: dict[Any, dict[str, Kernel]] = {}


def catalogue(make: str, arguments: tuple[Any, ...]) -> dict[str, Kernel]:
    """Return the kernels that :func:`compile_all` compiles, cached per process."""
    key = (make, repr(arguments))
    if key not in _known:
        module, _, function = make.partition(":")
        _known[key] = getattr(import_module(module), function)(*arguments)
    return _known[key]


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def _compile(
    make: str,
    arguments: tuple[Any, ...],
    architecture: tuple[int, int],
    folder: Path | None,
    name: str,
) -> bool:
    """Compile one kernel. Return False if it was already present."""
    from lrscan.cuda import machine_code

    kernel = catalogue(make, arguments)[name]
    with compilation.quiet():
        if folder is not None:
            return machine_code.export(kernel, architecture, folder)
        before = machine_code.tally[machine_code.COMPILED]
        machine_code.machine_code(kernel, architecture)
        return machine_code.tally[machine_code.COMPILED] > before
