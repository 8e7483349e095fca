"""Smoke test of a campaign: checks that every kernel computes the recurrence on this device.

Each case is written to a file of JSON lines before it starts and again when it has ended. So the
test survives a case that crashes or hangs: the next process finds a case that was started but not
ended, counts it as failed, and continues with the case after it.

``python -m lrscan.campaign.smoke CASE [CASE ...]`` runs cases, given as JSON, on the GPU. NVIDIA's
compute-sanitizer watches this command.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscan import linear_recurrence
from lrscan.core import gradients, sweep
from lrscan.core.checks import ALGORITHMS
from lrscan.core.dtypes import KINDS, state_dtype
from lrscan.core.reference import Exact, oracle
from lrscan.experiments.inputs import draw_inputs, lasting

# (shape, dim): every order in memory, one tile and many, aligned for vector loads and unaligned,
# more than 65,535 columns, more axes than a kernel takes.
LAYOUTS = {
    "one": ((1, 1), 0),
    "one-column": ((301, 1), 0),
    "thin": ((2000, 3), 0),
    "columns": ((300, 128), 0),
    "columns-unaligned": ((300, 31), 0),
    "columns-in-batches": ((3, 130, 160), 1),
    "time": ((7, 1024), 1),
    "time-unaligned": ((7, 1001), 1),
    "many-columns": ((4, 700), 0),
    "five-axes": ((2, 3, 2, 33, 5), 3),
}
LARGE = {
    "one-column": ((40_000, 1), 0),
    "thin": ((20_001, 3), 0),
    "columns": ((6_000, 128), 0),
    "columns-unaligned": ((5_999, 31), 0),
    "time": ((7, 20_000), 1),
    "time-unaligned": ((7, 10_001), 1),
    "columns-beyond-65535": ((40, 70_001), 0),
}
# Shapes of a coefficient that is broadcast over some axes.
PARTS = ("per-column", "per-step", "constant")
_FEW = ("columns", "time", "thin")
# On a GPU a case takes milliseconds once the libraries are loaded and the exact result is known.
HANGS_AFTER_S = 10.0
_SLOWER_WITHOUT_GPU = 6  # factor on HANGS_AFTER_S
# The test stops after this many failures, since more would add little information.
ENOUGH_FAILURES = 24
_LARGEST_SIMULATED = 12  # most steps or columns in Numba's simulator


class SmokeCase(NamedTuple):
    """One forward and one backward sweep.

    Attributes:
        algorithm: the name of the algorithm
        dtype:     the name of the dtype of the inputs
        shape:     the shape of the inputs
        dim:       the axis of time
        reverse:   True if the sweep runs backwards in time
        part:      "" for coefficients with the shape of the inputs, or one of ``PARTS``
        wide_a:    True if coefficients and start are float32 and the inputs half precision
        start:     True if there is a state before the first step
        public:    True if it goes through :func:`lrscan.linear_recurrence` and autograd
    """

    algorithm: str
    dtype: str
    shape: tuple[int, ...]
    dim: int
    reverse: bool = False
    part: str = ""
    wide_a: bool = False
    start: bool = True
    public: bool = False

    @classmethod
    def read(cls, given: dict[str, Any]) -> SmokeCase:
        """Return the case that a JSON object describes."""
        return cls(**given)._replace(shape=tuple(given["shape"]))

    def __str__(self) -> str:
        label = f"{self.algorithm} {self.dtype} {self.shape} dim={self.dim}"
        flags = [n for n in ("reverse", "wide_a", "public") if getattr(self, n)]
        return " ".join([label, *flags, *filter(None, [self.part])]) + " no-h0" * (not self.start)


def cases(algorithms: Iterable[str], dtypes: Iterable[str], large: bool = True) -> list[SmokeCase]:
    """Return the cases of some algorithms and dtypes; the quick, most revealing ones come first."""
    algorithms, dtypes = list(algorithms), list(dtypes)
    # Algorithms are innermost, so that the exact result is computed once for all of them.
    every = [SmokeCase("", dtype, *layout) for dtype in dtypes for layout in LAYOUTS.values()]
    every += [SmokeCase("", "float32", *layout, reverse=True) for layout in LAYOUTS.values()]
    for name in _FEW:
        plain = SmokeCase("", "float32", *LAYOUTS[name])
        every += [plain._replace(public=True), plain._replace(start=False)]
        every += [plain._replace(part=part) for part in PARTS]
        every += [plain._replace(dtype=d, wide_a=True) for d in dtypes if "16" in d]
    if large:
        every += [SmokeCase("", "float32", *layout) for layout in LARGE.values()]
    return [case._replace(algorithm=algorithm) for case in every for algorithm in algorithms]


def small_cases() -> list[SmokeCase]:
    """Return the cases for NVIDIA's checkers, under which everything is 100 times slower."""
    layouts = ("one-column", "columns", "columns-unaligned", "time", "five-axes")
    return [
        SmokeCase(algorithm, "float32", *LAYOUTS[layout])
        for algorithm in ("single_pass", "blocked")
        for layout in layouts
    ]


def for_device(device: torch.device) -> list[SmokeCase]:
    """Return the cases for a device: on a CPU with Numba's simulator, small ones of CUDA."""
    if device.type == "cuda":
        return for_cuda()
    if not simulated():
        return cases(ALGORITHMS["cpu"], ["float32", "bfloat16"], large=False)
    some = cases(ALGORITHMS["cuda"], ["float32", "bfloat16", "complex64"], large=False)
    small = [
        one._replace(shape=tuple(min(n, _LARGEST_SIMULATED) for n in one.shape), public=False)
        for one in some
        if len(one.shape) < 3
    ]
    return list(dict.fromkeys(small))


def for_cuda() -> list[SmokeCase]:
    """Return the cases for a GPU."""
    return cases(ALGORITHMS["cuda"], list(KINDS))


def simulated() -> bool:
    """Return True if Numba's CUDA simulator is on. CUDA kernels then process CPU tensors."""
    try:
        from lrscan.cuda.memory import SIMULATED
    except ImportError:  # no numba-cuda
        return False
    return SIMULATED


def draw(case: SmokeCase) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Draw (a, x, h0, dh) on the CPU; in every other column a state lasts a thousand steps."""
    steps, columns = case.shape[case.dim], math.prod(case.shape) // case.shape[case.dim]
    rest = [n for axis, n in enumerate(case.shape) if axis != case.dim]
    dtype = getattr(torch, case.dtype)
    a, x, h0 = draw_inputs(steps, columns, dtype, torch.device("cpu"), 0)
    dh = draw_inputs(steps, columns, dtype, torch.device("cpu"), 1)[1]
    a[:, ::2] = lasting(a[:, ::2])
    a, x, dh = (t.view(steps, *rest).movedim(0, case.dim).contiguous() for t in (a, x, dh))
    if case.wide_a:
        a, h0 = a.to(state_dtype(dtype)), h0.to(state_dtype(dtype))
    a = a[tuple(slice(n) for n in _shape_of_a(case))]
    return a.contiguous(), x, h0.view(rest) if case.start else None, dh


def _shape_of_a(case: SmokeCase) -> tuple[int, ...]:
    kept = {
        "": lambda axis: True,
        "per-column": lambda axis: axis != case.dim,
        "per-step": lambda axis: axis == case.dim,
        "constant": lambda axis: False,
    }[case.part]
    return tuple(n if kept(axis) else 1 for axis, n in enumerate(case.shape))


def _reference(case: SmokeCase) -> tuple[tuple[Tensor | None, ...], Exact]:
    """Return (inputs, exact results), cached since the loop is slower than all kernels together."""
    return _cached_reference(case._replace(algorithm="", public=False))


@functools.lru_cache(maxsize=4)
def _cached_reference(case: SmokeCase) -> tuple[tuple[Tensor | None, ...], Exact]:
    a, x, h0, dh = draw(case)
    start = torch.zeros_like(dh.select(case.dim, 0)) if h0 is None else h0
    whole = oracle(a.expand_as(x), x, start, dh, dim=case.dim, reverse=case.reverse)
    return (a, x, h0, dh), whole


def run(case: SmokeCase, device: torch.device) -> dict[str, float]:
    """Return, for each result, the largest error as a multiple of its rounding bound.

    A result is correct if this is at most 1. The gradient of a broadcast coefficient is a sum; its
    bound is the sum of the terms' bounds, plus the rounding of the summation.
    """
    inputs, exact = _reference(case)
    on = [None if t is None else t.to(device) for t in inputs]
    elements = math.prod(case.shape)
    got = _results(case, on, "cuda" if simulated() else device.type)
    shares = {}
    for name, result, (value, bound) in zip(exact._fields, got, exact, strict=True):
        if result is None:
            continue
        if result.shape != value.shape:
            value, bound = (t.sum_to_size(result.shape) for t in (value, bound))
            # In a sum of n terms, each term is rounded up to n more times.
            terms = elements // max(result.numel(), 1)
            rounding = terms * torch.finfo(result.dtype).eps
            bound = bound + rounding * exact.da[0].abs().sum_to_size(result.shape)
        share = (result.cpu() - value).abs() / bound.clamp_min(1e-300)
        worst = share.max().item() if share.numel() else 0.0
        shares[name] = math.inf if math.isnan(worst) else worst
    return shares


def _results(
    case: SmokeCase, tensors: Iterable[Tensor | None], backend: str
) -> list[Tensor | None]:
    """Compute (h, da, dx, dh0) from (a, x, h0, dh)."""
    a, x, h0, dh = tensors
    assert a is not None and x is not None and dh is not None  # only h0 may be None
    options = (case.dim, case.reverse, case.algorithm)
    if case.public:
        leaves = [t.requires_grad_() for t in (a, x, h0) if t is not None]
        h = linear_recurrence(
            a, x, h0, dim=case.dim, reverse=case.reverse, algorithm=case.algorithm
        )
        found = list(torch.autograd.grad(h, leaves, dh))
        return [h.detach(), *found, *[None] * (3 - len(found))]
    h = sweep.forward(a, x, h0, *options, out=_unwritten(x), backend=backend)
    return [h, *gradients.backward(a, h, h0, dh, x.shape, *options, backend=backend)]


def _unwritten(like: Tensor) -> Tensor:
    """Return an output filled with NaN, so that elements that no kernel writes are noticed."""
    out = torch.empty_like(like)
    return out if like.is_meta else out.fill_(math.nan)


def launch(case: SmokeCase) -> None:
    """Run the same sweeps on tensors without data, for :func:`lrscan.cuda.launch.noted`."""
    _results(case._replace(public=False), _shapes(case), "cuda")


def _shapes(case: SmokeCase) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return tensors like those of :func:`draw`, but without data."""
    rest = [n for axis, n in enumerate(case.shape) if axis != case.dim]
    dtype = getattr(torch, case.dtype)
    wide = state_dtype(dtype) if case.wide_a else dtype
    a = torch.empty(_shape_of_a(case), dtype=wide, device="meta")
    x = torch.empty(case.shape, dtype=dtype, device="meta")
    h0 = torch.empty(rest, dtype=wide, device="meta") if case.start else None
    return a, x, h0, torch.empty_like(x)


class Notes:
    """Log of the cases in a file of JSON lines, of earlier processes and of this one.

    Attributes:
        path:  the file
        ended: the result of each case that ended, or that died with its process
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended: dict[SmokeCase, dict[str, Any]] = {}
        started = None
        for line in path.read_text().splitlines() if path.is_file() else ():
            result = json.loads(line)
            case = SmokeCase.read(result.pop("case"))
            if result:
                self.ended[case], started = result, None
            else:
                started = case
        if started is not None:
            self.write(started, {"passed": False, "error": "the process died or hung"})

    def write(self, case: SmokeCase, result: dict[str, Any] | None = None) -> None:
        """Log that a case has started, or its result."""
        if result:
            self.ended[case] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"case": case._asdict()} | (result or {})) + "\n")

    @property
    def failures(self) -> list[SmokeCase]:
        """Cases that did not pass."""
        return [case for case, result in self.ended.items() if not result["passed"]]


def check(case: SmokeCase, device: torch.device, notes: Notes) -> bool:
    """Run a case and log its result. Return True if it passed.

    Raises:
        SystemExit: this process can no longer use the device
    """
    _reference(case)
    notes.write(case)
    seconds = HANGS_AFTER_S * (1 if device.type == "cuda" else _SLOWER_WITHOUT_GPU)
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        shares = run(case, device)
        passed = all(share <= 1 for share in shares.values())
        notes.write(case, {"passed": passed, "shares": shares})
    except Exception as error:
        words = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {words[0] if words else ''}"
        notes.write(case, {"passed": False, "error": message})
        passed = False
        if not _works(device):
            sys.exit(f"{case}: {message}; the device no longer works in this process")
    finally:
        faulthandler.cancel_dump_traceback_later()
    return passed


def _works(device: torch.device) -> bool:
    """Return True if this process can still use the device; after an illegal access it cannot."""
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except Exception:
        return False


def sweep_through(
    wanted: Iterable[SmokeCase], device: torch.device, notes: Notes, until: float = math.inf
) -> Iterator[SmokeCase]:
    """Check the cases that are not in the notes yet, and yield those that fail.

    No case is started after ``until``, by ``time.monotonic``.
    """
    # In deterministic mode torch fills new memory with NaN, so unwritten elements are noticed.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.ones(2, device=device).sum().item()  # loads libraries before the first timeout starts
    for case in wanted:
        if time.monotonic() > until:
            return
        if case not in notes.ended and not check(case, device, notes):
            yield case


def main(arguments: list[str]) -> int:
    """Run cases, given as JSON, on the GPU. Return the exit status: 1 if a result is wrong."""
    device, wrong = torch.device("cuda"), 0
    for text in arguments:
        case = SmokeCase.read(json.loads(text))
        shares = run(case, device)
        wrong += not all(share <= 1 for share in shares.values())
        print(case, {name: round(share, 3) for name, share in shares.items()}, flush=True)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
