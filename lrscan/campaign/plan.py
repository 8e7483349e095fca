"""Plan of a campaign: an estimate of the seconds that each phase takes, not measured.

The time of a sweep is its bytes over the bandwidth. Where one thread runs through all of time, it
is the number of steps times the latency of one step, if that is longer. Each sample adds a launch
and a flush of the cache. Each shape adds the time to draw its inputs and to compare its outputs
with the loop. The times of trainings rest on a guess at the number of iterations.
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

# For an H100: memory bandwidth in bytes per second, operations per second in full float32, and the
# bytes that one flush of the cache writes.
BANDWIDTH, FLOPS, FLUSHED = 3.0e12, 4e13, 2**28
LAUNCH_S, EVENT_S = 1e-5, 5e-5
# The latency of one step of a thread, and of one step of cuDNN's LSTM per layer and direction.
STEP_S = {"serial_paper": 8e-7, "serial": 2e-7}
LSTM_STEP_S = 1e-5
# Calls of a candidate in addition to its samples: to compare, to warm up, to capture.
_EXTRA_CALLS = 4
# Seconds to start the machine before the command; to start the first process; to start each further
# process, which imports ahead of time; and for each shape, in addition to its samples.
MACHINE_S, FIRST_S, START_S, SHAPE_S = 120.0, 20.0, 3.0, 0.3
_CHECKED_STEP_S = 1e-4  # one step of the loop in double precision


def sweep_s(algorithm: str, size: float, steps: int) -> float:
    """Return the seconds of a sweep over ``steps`` steps that moves ``size`` bytes."""
    passes = 5 / 3 if algorithm == "blocked" else 1.0
    return max(passes * size / BANDWIDTH, steps * STEP_S.get(algorithm, 0.0)) + LAUNCH_S


def sampled_s(seconds: float, runs: int) -> float:
    """Return the seconds of ``runs`` samples of something that takes ``seconds``."""
    return (runs + _EXTRA_CALLS) * (seconds + FLUSHED / BANDWIDTH + EVENT_S)


def parameters(notebook: str) -> dict[str, Any]:
    """Return the parameters of a notebook in the profile gpu."""
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
    given, total = parameters("reproduce/02_kernel_speedup"), 0.0
    for steps, columns in in_order(given["lengths"], given["features"]):
        total += SHAPE_S + min(steps, 4096) * _CHECKED_STEP_S
        size = 12 * steps * columns
        for algorithm in (*ALGORITHMS["cuda"], "add"):
            total += sampled_s(sweep_s(algorithm, size, steps), given["runs"])
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
            total += 10 * size / BANDWIDTH  # to compare the results
    return total


def _throughput() -> float:
    given = parameters("reproduce/02_kernel_speedup")
    cases = gpu_cases(given["elements"], given["compare"])
    calls = 6 * (given["runs"] + 1) * 200 * 6e-5
    return calls + sum(_case(case, given["runs"]) for case in cases if not case.against)


def _rivals() -> float:
    """Estimate the time of the rivals; most of it is for nvcc, XLA, Triton and Inductor."""
    given = parameters("reproduce/02_kernel_speedup")
    cases = [c for c in gpu_cases(given["elements"], given["compare"]) if c.against]
    return 75.0 + sum(_case(case, given["runs"]) + 2.0 for case in cases)


def _table_2() -> float:
    given, total = parameters("reproduce/03_training_speedup"), 0.0
    recurrences = {"SRU": 2, "QRNN(2)": 2, "QRNN(10)": 2, "GILR-LSTM": 4}
    for steps, width, name in product(given["lengths"], given["widths"], given["names"]):
        events = given["events"]
        products = 3 * 2 * 2 * events * width * 4 * width * (10 if name == "QRNN(10)" else 2)
        rest = products / FLOPS + 3 * 2 * 30 * 4 * events * width / BANDWIDTH + 1e-3
        total += SHAPE_S
        for algorithm in ALGORITHMS["cuda"]:
            both = sum(sweep_s(algorithm, n * 4 * events * width, steps) for n in (3, 5))
            total += sampled_s(recurrences[name] * both + rest, given["runs"])
    return total


def gilr_step_s(events: int, hidden: int, inputs: int = 128) -> float:
    """Return the seconds of a training step of a GILR-LSTM with two layers."""
    products = 3 * 2 * events * 4 * hidden * (inputs + 3 * hidden)
    return products / FLOPS + 2 * 3 * 40 * 4 * events * hidden / BANDWIDTH + 2e-3


def lstm_step_s(steps: int, events: int, hidden: int, inputs: int = 128) -> float:
    """Return the seconds of a training step of cuDNN's LSTM with two layers."""
    products = 3 * 2 * events * 4 * hidden * (inputs + 3 * hidden)
    return products / FLOPS + 3 * 2 * steps * LSTM_STEP_S + 2e-3


def _heat_map() -> float:
    given, total = parameters("reproduce/04_lstm_throughput"), 0.0
    for steps, batch in product(given["lengths"], given["minibatches"]):
        if steps * batch <= given["most_events"]:
            total += SHAPE_S + sampled_s(gilr_step_s(steps * batch, given["hidden"]), given["runs"])
    for steps, batch in product(given["lstm_lengths"], given["minibatches"]):
        if steps * batch <= given["most_events"]:
            one = lstm_step_s(steps, steps * batch, given["hidden"])
            total += SHAPE_S + sampled_s(one, given["runs"])
    return total


def _problem_2b() -> float:
    """Estimate with the iterations of a CPU: 100 for the GILR-LSTM, 300 and 200 for the LSTM."""
    given, total = parameters("reproduce/05_problem_2b"), 0.0
    hidden, batch = given["hidden"], given["batch"]
    for steps, iterations in ((1024, 100), (2048, 100)):
        total += iterations * gilr_step_s(steps * batch, hidden)
    for steps, iterations in ((1024, 300), (2048, 200)):
        total += iterations * lstm_step_s(steps, steps * batch, hidden)
    return total


def _one_million() -> float:
    """Estimate 110 iterations of a curriculum, at half the full work, and an evaluation."""
    given = parameters("reproduce/06_one_million_steps")
    full = gilr_step_s(2**20, given["hidden"])
    times = [gilr_step_s(steps, given["hidden"]) for steps in given["step_lengths"]]
    fresh = given["sequences"] + 256
    return 110 * full / 2 + fresh * full / 3 + sum(sampled_s(one, 3) for one in times)


ESTIMATES: dict[str, Callable[[], float]] = {
    "smoke": _smoke,
    "table_1": _table_1,
    "throughput": _throughput,
    "table_2": _table_2,
    "heat_map": _heat_map,
    "sanitizer": lambda: 2 * 20.0,  # a guess: one process, and ten cases that are 100 times slower
    "problem_2b": _problem_2b,
    "one_million": _one_million,
    "rivals": _rivals,
}


def table(minutes: float, calls: int, phases: Sequence[Phase] = PHASES) -> tuple[list[str], bool]:
    """Return (lines of the plan, True if every phase with a limit is finished).

    Args:
        minutes: the time limit of each call
        calls:   the number of calls
        phases:  the phases, in order

    Raises:
        CampaignError: the minutes are too few
    """
    from lrscan.campaign.run import RESERVE_S, check_minutes

    check_minutes(minutes)
    limited = [phase for phase in phases if phase.limit_s is not None]
    need = {phase.name: ESTIMATES[phase.name]() for phase in limited}
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
    lines = [f"{'phase':12}{'estimate':>9}{'limit':>9}{head}   about"]
    for phase in phases:
        limit = "the rest" if phase.limit_s is None else f"{phase.limit_s:.0f} s"
        cells = "".join(
            f"{f'{share[phase.name]:.0f} s' if phase.name in share else '':>9}" for share in shares
        )
        estimate = f"{need[phase.name]:.0f} s" if phase.name in need else ""
        lines.append(f"{phase.name:12}{estimate:>9}{limit:>9}{cells}   {phase.about}")
    over = [name for name, seconds in left.items() if seconds > 0.5]
    total = calls * (minutes + MACHINE_S / 60)
    lines.append(
        f"Estimated for an H100, not measured: {sum(need.values()):.0f} s for the phases with a "
        f"limit, {spare:.0f} s left for the rest."
    )
    lines.append(
        f"Including {MACHINE_S / 60:.0f} minutes per start of the machine: {total:.1f} minutes."
    )
    fits = "the plan fits"
    if over:
        fits = f"the plan does not fit; unfinished: {', '.join(over)}"
    lines.append(f"{calls} call{'s' * (calls > 1)} of {minutes:g} minutes: {fits}.")
    return lines, not over
