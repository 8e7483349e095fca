"""What a campaign will take: the seconds of each phase, reckoned and not measured.

A sweep is bytes over bandwidth, or steps times the time of one dependent step where a thread runs
through all of time. A sample adds a launch and a flush of the cache. A shape adds drawing its
inputs and holding its outputs against the loop. What training takes is a guess at its iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from lrscan.campaign.phases import PHASES, Phase
from lrscan.core.checks import ALGORITHMS
from lrscan.evidence import workspace
from lrscan.experiments.candidates import SERIAL_STEPS
from lrscan.experiments.cases import Case, gpu_cases
from lrscan.experiments.kernel_speedup import in_order
from lrscan.runner import catalog

# Of an H100: bytes a second of its memory, multiply-adds a second in full float32, bytes flushed.
BANDWIDTH, FLOPS, FLUSHED = 3.0e12, 4e13, 2**28
LAUNCH_S, EVENT_S = 1e-5, 5e-5
# A dependent step of one thread, and of cuDNN's LSTM in one layer and one direction.
STEP_S = {"serial_paper": 8e-7, "serial": 2e-7}
LSTM_STEP_S = 1e-5
# Calls of a candidate beside its samples: to compare, to warm up, to capture.
_BESIDE = 4
# Seconds: of the machine before the command; of the start of the first process, and of each further
# one, which imports ahead; and of what a shape takes beside its samples.
MACHINE_S, FIRST_S, START_S, SHAPE_S = 120.0, 20.0, 3.0, 0.3
_CHECKED_STEP_S = 1e-4  # of the loop in double precision


def sweep_s(algorithm: str, size: float, steps: int) -> float:
    """Seconds of a sweep that moves ``size`` bytes over so many steps."""
    passes = 5 / 3 if algorithm == "blocked" else 1.0
    return max(passes * size / BANDWIDTH, steps * STEP_S.get(algorithm, 0.0)) + LAUNCH_S


def sampled_s(seconds: float, runs: int) -> float:
    """Seconds of all samples of something that takes so many."""
    return (runs + _BESIDE) * (seconds + FLUSHED / BANDWIDTH + EVENT_S)


def parameters(notebook: str) -> dict[str, Any]:
    """The parameters of a notebook in the profile of GPUs."""
    root = workspace.find_root()
    every = catalog.discover(root)
    catalog.whole(next(one for one in every if one.name == notebook))
    return catalog.load_profile(root, "gpu", every).parameters[notebook]


def _smoke() -> float:
    from lrscan.campaign.smoke import for_cuda

    every = for_cuda()
    exact = {one._replace(algorithm="") for one in every}
    loops = sum(case.shape[case.dim] for case in exact) * 6e-5
    return loops + 0.015 * len(every)


def _table_1() -> float:
    of, total = parameters("reproduce/02_kernel_speedup"), 0.0
    for steps, columns in in_order(of["lengths"], of["features"]):
        total += SHAPE_S + min(steps, 4096) * _CHECKED_STEP_S
        size = 12 * steps * columns
        for algorithm in (*ALGORITHMS["cuda"], "add"):
            total += sampled_s(sweep_s(algorithm, size, steps), of["runs"])
    return total


def _case(case: Case, runs: int) -> float:
    width = 2 if "16" in case.dtype else 4
    elements = case.T * case.B * case.C
    total = SHAPE_S + min(case.T, 256) * _CHECKED_STEP_S
    algorithms = [
        name
        for name in ALGORITHMS["cuda"]
        if case.T <= SERIAL_STEPS or not name.startswith("serial")
    ]
    for tensors in (3, 5):
        size = tensors * width * elements
        for algorithm in (*algorithms, "copy"):
            total += sampled_s(sweep_s(algorithm, size, case.T), runs)
            total += 10 * size / BANDWIDTH  # compared
    return total


def _throughput() -> float:
    of = parameters("reproduce/02_kernel_speedup")
    cases = gpu_cases(of["elements"], of["compare"])
    calls = 6 * (of["runs"] + 1) * 200 * 6e-5
    return calls + sum(_case(case, of["runs"]) for case in cases if not case.against)


def _rivals() -> float:
    """Most of it is their compilers: nvcc for one, XLA, Triton and Inductor for others."""
    of = parameters("reproduce/02_kernel_speedup")
    cases = [c for c in gpu_cases(of["elements"], of["compare"]) if c.against]
    return 75.0 + sum(_case(case, of["runs"]) + 2.0 for case in cases)


def _table_2() -> float:
    of, total = parameters("reproduce/03_training_speedup"), 0.0
    recurrences = {"SRU": 2, "QRNN(2)": 2, "QRNN(10)": 2, "GILR-LSTM": 4}
    for steps, width, name in product(of["lengths"], of["widths"], of["names"]):
        events = of["events"]
        products = 3 * 2 * 2 * events * width * 4 * width * (10 if name == "QRNN(10)" else 2)
        rest = products / FLOPS + 3 * 2 * 30 * 4 * events * width / BANDWIDTH + 1e-3
        total += SHAPE_S
        for algorithm in ALGORITHMS["cuda"]:
            both = sum(sweep_s(algorithm, n * 4 * events * width, steps) for n in (3, 5))
            total += sampled_s(recurrences[name] * both + rest, of["runs"])
    return total


def gilr_step_s(events: int, hidden: int, inputs: int = 128) -> float:
    """Seconds of a training step of a GILR-LSTM of two layers."""
    products = 3 * 2 * events * 4 * hidden * (inputs + 3 * hidden)
    return products / FLOPS + 2 * 3 * 40 * 4 * events * hidden / BANDWIDTH + 2e-3


def lstm_step_s(steps: int, events: int, hidden: int, inputs: int = 128) -> float:
    """Seconds of a training step of cuDNN's LSTM of two layers."""
    products = 3 * 2 * events * 4 * hidden * (inputs + 3 * hidden)
    return products / FLOPS + 3 * 2 * steps * LSTM_STEP_S + 2e-3


def _heat_map() -> float:
    of, total = parameters("reproduce/04_lstm_throughput"), 0.0
    for steps, batch in product(of["lengths"], of["minibatches"]):
        if steps * batch <= of["most_events"]:
            total += SHAPE_S + sampled_s(gilr_step_s(steps * batch, of["hidden"]), of["runs"])
    for steps, batch in product(of["lstm_lengths"], of["minibatches"]):
        if steps * batch <= of["most_events"]:
            one = lstm_step_s(steps, steps * batch, of["hidden"])
            total += SHAPE_S + sampled_s(one, of["runs"])
    return total


def _problem_2b() -> float:
    """With iterations as on a CPU: 100 for the GILR-LSTM, and 300 and 200 for the LSTM."""
    of, total = parameters("reproduce/05_problem_2b"), 0.0
    hidden, batch = of["hidden"], of["batch"]
    for steps, iterations in ((1024, 100), (2048, 100)):
        total += iterations * gilr_step_s(steps * batch, hidden)
    for steps, iterations in ((1024, 300), (2048, 200)):
        total += iterations * lstm_step_s(steps, steps * batch, hidden)
    return total


def _one_million() -> float:
    """A curriculum of 110 iterations, half of the work at the full length, then fresh sequences."""
    of = parameters("reproduce/06_one_million_steps")
    full = gilr_step_s(2**20, of["hidden"])
    times = [gilr_step_s(steps, of["hidden"]) for steps in of["step_lengths"]]
    fresh = of["sequences"] + 256
    return 110 * full / 2 + fresh * full / 3 + sum(sampled_s(one, 3) for one in times)


RECKONED: dict[str, Callable[[], float]] = {
    "smoke": _smoke,
    "table_1": _table_1,
    "throughput": _throughput,
    "table_2": _table_2,
    "heat_map": _heat_map,
    "sanitizer": lambda: 2 * 20.0,  # a guess: a process, and ten cases at a hundredth of the speed
    "problem_2b": _problem_2b,
    "one_million": _one_million,
    "rivals": _rivals,
}


def table(minutes: float, calls: int, phases: Sequence[Phase] = PHASES) -> tuple[list[str], bool]:
    """(the plan in lines, whether every phase with a limit is finished).

    Args:
        minutes: of a call
        calls:   how many there are
    """
    from lrscan.campaign.run import RESERVE_S, check_minutes

    check_minutes(minutes)
    limited = [phase for phase in phases if phase.limit_s is not None]
    need = {phase.name: RECKONED[phase.name]() for phase in limited}
    left = dict(need)
    shares: list[dict[str, float]] = []
    spare = 0.0
    for _ in range(calls):
        budget = 60 * minutes - RESERVE_S
        start, share = FIRST_S, dict[str, float]()
        for phase in limited:
            if left[phase.name] <= 0 or budget <= start:
                continue
            taken = min(left[phase.name] + start, phase.limit_s or 0.0, budget)
            share[phase.name] = taken
            left[phase.name] -= taken - start
            budget -= taken
            start = START_S
        shares.append(share)
        spare += max(budget, 0.0)
    head = "".join(f"{f'call {number}':>9}" for number in range(1, calls + 1))
    lines = [f"{'phase':12}{'reckoned':>9}{'limit':>9}{head}   finds out"]
    for phase in phases:
        limit = "the rest" if phase.limit_s is None else f"{phase.limit_s:.0f} s"
        cells = "".join(
            f"{f'{share[phase.name]:.0f} s' if phase.name in share else '':>9}" for share in shares
        )
        wanted = f"{need[phase.name]:.0f} s" if phase.name in need else ""
        lines.append(f"{phase.name:12}{wanted:>9}{limit:>9}{cells}   {phase.about}")
    over = [name for name, seconds in left.items() if seconds > 0.5]
    total = calls * (minutes + MACHINE_S / 60)
    lines.append(
        f"Reckoned, not measured: {sum(need.values()):.0f} s in all, {spare:.0f} s left for the "
        f"rest. With {MACHINE_S / 60:.0f} minutes for each start of a machine: {total:.1f} minutes."
    )
    fits = "fits" if not over else f"does not fit: {', '.join(over)} will be left unfinished"
    lines.append(f"{calls} call{'s' * (calls > 1)} of {minutes:g} minutes: {fits}.")
    return lines, not over
