"""Phases of a campaign, the most valuable first, and the functions that run in their processes.

What a phase prints goes to its log. Its last line that starts with "=> " goes into the summary. A
phase returns ``DONE``, ``PARTIAL`` (more to do another time) or ``UNAVAILABLE`` (the machine lacks
something), and raises if it failed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lrscan.campaign import kit, narrow, smoke, warmup
from lrscan.campaign.worker import DONE, PARTIAL, UNAVAILABLE, PhaseContext
from lrscan.evidence import provenance, records, workspace
from lrscan.experiments import run
from lrscan.experiments.problem_2b_search import search_records
from lrscan.experiments.training_runs import outcomes

# A phase starts nothing new in its last seconds, so that it need not be killed.
_MARGIN_S = 6.0
_FOUND = 99  # exit status of a checker that found an error
_LONGEST_WATCH_S = 90.0  # time limit of a checker


class Phase(NamedTuple):
    """Part of a campaign that runs in a process of its own.

    Attributes:
        name:      the name on the command line and in files
        about:     a description of what it measures or checks
        limit_s:   its time limit in seconds, reserved for it alone; None: the time that the other
            phases leave over
        call:      "module:function", called with a :class:`PhaseContext` and the arguments
        arguments: further arguments of the call, JSON values
        attempts:  the most times that it is started, if its process dies
        simulated: True if it runs kernels only; without a GPU they run in Numba's simulator
    """

    name: str
    about: str
    limit_s: float | None
    call: str
    arguments: Mapping[str, Any] = {}
    attempts: int = 1
    simulated: bool = False


def _measured(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"steps": list(steps)}


def _step(
    *experiments: str,
    options: Mapping[str, Any] | None = None,
    gpu: Iterable[str] = (),
    cpu: Iterable[str] = (),
) -> dict[str, Any]:
    """Return a step that runs experiments, with parameters for a GPU and for a CPU rehearsal."""
    assigned = {"cuda": list(gpu), "cpu": list(cpu)}
    return {
        "experiments": experiments,
        "options": dict(options or {}),
        "assignments": assigned,
    }


_RUN = "lrscan.campaign.phases:{}".format
_NO_CURRICULUM, _ONE_SEED = "lengths=[]", "seeds=[0]"
_SHORT_CPU = ("lengths=[64]", "grown_lengths=[128]", "apart_lengths=[]")
_LONG_CPU = ("lengths=[]", "lstm_lengths=[]", "grown_lengths=[256]")

PHASES = (
    Phase(
        "smoke",
        "every algorithm, dtype and layout, compared with the double-precision loop",
        60,
        _RUN("check_kernels"),
        attempts=4,
        simulated=True,
    ),
    Phase(
        "table_1",
        "speedup of the operator alone: serial time over parallel time",
        50,
        _RUN("measure"),
        _measured(_step("kernel_speedup")),
    ),
    Phase(
        "throughput",
        "speed of the operator relative to a copy, and the cost of a call",
        50,
        _RUN("measure"),
        _measured(_step("call_cost"), _step("throughput", options={"rivals_later": True})),
    ),
    Phase(
        "table_2",
        "time of training steps that differ only in the kernel",
        75,
        _RUN("measure"),
        _measured(_step("training_speedup")),
    ),
    Phase(
        "heat_map",
        "training throughput of the GILR-LSTM and of cuDNN's LSTM",
        50,
        _RUN("measure"),
        _measured(_step("lstm_throughput")),
    ),
    Phase(
        "sanitizer",
        "small cases under NVIDIA's memcheck and racecheck",
        60,
        _RUN("sanitize"),
    ),
    Phase(
        "problem_2b",
        "problem 2b at 1,024 and 8,192 steps, one seed",
        65,
        _RUN("measure"),
        _measured(
            _step(
                "problem_2b",
                gpu=(
                    _ONE_SEED,
                    "lengths=[1024]",
                    "grown_lengths=[8192]",
                    "apart_lengths=[]",
                    "matched=false",
                ),
                cpu=(_ONE_SEED, *_SHORT_CPU),
            )
        ),
    ),
    Phase(
        "one_million",
        "problem 2b at 1,048,576 steps, one seed, and the time of a training step",
        30,
        _RUN("measure"),
        _measured(
            _step("step_time", cpu=("step_lengths=[256, 1024]",)),
            _step(
                "long_memory",
                gpu=(_ONE_SEED, _NO_CURRICULUM, "lstm_lengths=[]", "grown_lengths=[1048576]"),
                cpu=(_ONE_SEED, *_LONG_CPU),
            ),
        ),
    ),
    Phase(
        "rivals",
        "speed of other implementations, compared with ours",
        120,
        _RUN("compare"),
        _measured(_step("throughput")),
    ),
    Phase(
        "more_seeds",
        "problem 2b with five seeds at every length",
        None,
        _RUN("measure"),
        _measured(
            _step(
                "problem_2b",
                gpu=("lengths=[1024]", "grown_lengths=[8192]", "apart_lengths=[]"),
                cpu=("seeds=[0, 1]", *_SHORT_CPU),
            ),
            _step(
                "long_memory",
                gpu=(_NO_CURRICULUM, "lstm_lengths=[]", "grown_lengths=[1048576]"),
                cpu=("seeds=[0, 1]", *_LONG_CPU),
            ),
            _step("problem_2b", cpu=("seeds=[0, 1]", *_SHORT_CPU)),
        ),
    ),
    Phase("tests", "the remaining tests in tests/cuda/test_cuda*.py", None, _RUN("test")),
)

# Runs before all other phases on a GPU if no kit provides the kernels.
COMPILE = Phase(
    "compile",
    "compilation of the kernels of all phases, for this GPU",
    240,
    _RUN("compile_kernels"),
)

# Replaces all phases after the smoke test if that has failed.
NARROW = Phase(
    "narrow",
    "the smallest failing case, and what the failure depends on",
    None,
    _RUN("narrow_down"),
    attempts=8,
    simulated=True,
)


def say(message: str) -> None:
    """Print the phase's message for the summary."""
    print(f"=> {message}", flush=True)


def _notes(context: PhaseContext, name: str) -> smoke.Notes:
    return smoke.Notes(context.work / "notes" / f"{name}.jsonl")


def compile_kernels(context: PhaseContext) -> int:
    """Compile the kernels of all phases on all cores, into this machine's cache."""
    device = torch.device(context.device)
    warmup.check_compilers()
    compiled, kept = warmup.compile_all(
        kit.NEEDED,
        (torch.cuda.get_device_properties(device).multi_processor_count,),
        torch.cuda.get_device_capability(device),
        None,
    )
    say(f"{compiled} kernels compiled, {kept} already present")
    return DONE


def check_kernels(context: PhaseContext) -> int:
    """Run the smoke test."""
    device = torch.device(context.device)
    wanted, notes = smoke.for_device(device), _notes(context, "smoke")
    if len(notes.failures) < smoke.ENOUGH_FAILURES:
        for case in smoke.sweep_through(wanted, device, notes, context.until - _MARGIN_S):
            print(f"failed: {case}: {notes.ended[case]}", flush=True)
            if len(notes.failures) >= smoke.ENOUGH_FAILURES:
                break
    right = len(notes.ended) - len(notes.failures)
    text = f"{right:,} of {len(wanted):,} cases are within the rounding bound"
    if failures := notes.failures:
        first = notes.ended[failures[0]]
        raise RuntimeError(
            f"{text}; {len(failures)} failed, first: {failures[0]}: "
            f"{first.get('error') or first.get('shares')}"
        )
    say(f"{text}, in Numba's simulator" if smoke.simulated() else text)
    return DONE if right == len(wanted) else PARTIAL


def narrow_down(context: PhaseContext) -> int:
    """Find the smallest failing case, and run memcheck on it if there is one."""
    failures = _notes(context, "smoke").failures
    notes, until = _notes(context, "narrow"), context.until - _MARGIN_S
    found = narrow.smallest(failures, torch.device(context.device), notes, until, say)
    checker = _checker()
    if context.device == "cuda" and checker is not None and context.left > 2 * _MARGIN_S:
        tool = "memcheck"
        report = _watch(context, checker, tool, [found.case], context.left - _MARGIN_S)
        say(f"{found.summary}; {tool}: {report}")
    return DONE if found.complete else PARTIAL


def measure(context: PhaseContext, steps: list[dict[str, Any]]) -> int:
    """Run experiments, as ``lrscan bench --resume`` does."""
    status, progress = DONE, list[str]()
    for step in steps:
        seconds = context.left - _MARGIN_S
        if seconds <= 0:
            status = PARTIAL
            break
        _print_search(context, step["experiments"])
        planned = run.plan(
            step["experiments"],
            profile=context.profile,
            device=context.device,
            assignments=step["assignments"][context.device],
        )
        got = run.measure(
            planned,
            out=context.work / "records",
            until=time.monotonic() + seconds,
            resume=True,
            options=step["options"],
        )
        status = status or got
        progress += [_progress(context, name) for name in step["experiments"]]
    say("; ".join(dict.fromkeys(progress)) or "not started")
    return PARTIAL if status else DONE


def _progress(context: PhaseContext, experiment: str) -> str:
    """Describe how much of an experiment is in the records."""
    slug = provenance.device_slug(context.device)
    found = records.find(experiment, slug, directory=context.work / "records")
    if found is None:
        return f"{experiment}: nothing yet"
    if "run" in found.table:
        runs = outcomes(found)
        learned = runs["status"].eq("learned").sum()
        text = f"{experiment}: {learned} of {len(runs)} runs learned"
    else:
        text = f"{experiment}: {len(found.table):,} timings"
    return f"{text}, {found.left} left to measure" if found.left else text


def _print_search(context: PhaseContext, experiments: Iterable[str]) -> None:
    """Print the device whose search chose the settings of a training."""
    if "problem_2b" in experiments:
        found = search_records(context.device)
        print(f"training settings from the search on {found.device_label}", flush=True)


def compare(context: PhaseContext, steps: list[dict[str, Any]]) -> int:
    """Run experiments like :func:`measure`, with the packages of the kit installed."""
    # A build that was killed leaves a lock, and the next build would wait for it forever.
    os.environ["TORCH_EXTENSIONS_DIR"] = tempfile.mkdtemp(prefix="lrscan-extensions-")
    if context.wheels is not None:
        site = context.work.parent / f"{context.work.name}-rivals"
        wheels = sorted(map(str, context.wheels.glob("*.whl")))
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        done = subprocess.run([*install, "--no-compile", "--target", str(site), *wheels])
        if done.returncode == 0:
            sys.path.insert(0, str(site))
    if context.device != "cuda":
        return measure(context, steps)
    from lrscan.cuda.numba_cuda import numpy_as_numba_knows_it

    with numpy_as_numba_knows_it():  # for packages that compile with Numba
        return measure(context, steps)


def sanitize(context: PhaseContext) -> int:
    """Run NVIDIA's compute-sanitizer on small cases."""
    checker = _checker()
    if context.device != "cuda" or checker is None:
        say("there is no GPU" if checker else "compute-sanitizer is not installed")
        return UNAVAILABLE
    reports, cases = [], smoke.small_cases()
    for number, tool in enumerate(("memcheck", "racecheck")):
        seconds = min((context.left - _MARGIN_S) / (2 - number), _LONGEST_WATCH_S)
        reports.append(f"{tool}: {_watch(context, checker, tool, cases, seconds)}")
    say("; ".join(reports))
    if any("not supported" in one for one in reports):
        return UNAVAILABLE
    if any("found" in one or "did not work" in one for one in reports):
        raise RuntimeError("; ".join(reports))
    return PARTIAL if any("time ran out" in one for one in reports) else DONE


def _checker() -> str | None:
    found = shutil.which("compute-sanitizer")
    usual = Path("/usr/local/cuda/bin/compute-sanitizer")
    return found or (str(usual) if usual.exists() else None)


def _watch(
    context: PhaseContext, checker: str, tool: str, cases: Iterable[smoke.SmokeCase], seconds: float
) -> str:
    """Run a checker on some cases and return its report in a few words.

    Errors returned by the driver's API are not counted: the bindings look for functions that an
    older driver does not have, and torch handles its own errors.
    """
    given = [json.dumps(case._asdict()) for case in cases]
    options = ["--tool", tool, "--error-exitcode", str(_FOUND), "--report-api-errors", "no"]
    line = [checker, *options, sys.executable, "-m", "lrscan.campaign.smoke", *given]
    path = context.work / "notes" / f"{tool}.txt"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as log:
        process = subprocess.Popen(
            line,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGKILL)  # the group, or else the watched process lives
            process.wait()
    printed = path.read_text(errors="replace")
    if "Device not supported" in printed:
        return "not supported on this device"
    checked = printed.count("dim=")
    if status is None:
        return f"time ran out after {checked} of {len(given)} cases"
    if status == _FOUND:
        return f"errors found, see notes/{path.name}"
    if status:
        return f"the checker did not work (exit status {status}), see notes/{path.name}"
    return f"{checked} cases without errors"


def test(context: PhaseContext) -> int:
    """Run the remaining tests of the CUDA kernels."""
    if importlib.util.find_spec("pytest") is None:
        say("pytest is not installed")
        return UNAVAILABLE
    root, several = workspace.find_root(), importlib.util.find_spec("xdist") is not None
    report = context.work / "notes" / "tests.xml"
    # Tests that repeat earlier phases, and tests that time something while others compute.
    left_out = ["every_layout", "sanitizer", *["31", "behind", "costs", "share"] * several]
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        *["-n", "8", "--maxfail", "8"] * several,
        f"--junitxml={report}",
        "-k",
        " and ".join(f"not {name}" for name in left_out),
        "tests/cuda/test_cuda.py",
        "tests/cuda/test_cuda_train.py",
    ]
    try:
        done = subprocess.run(
            line, cwd=root, capture_output=True, text=True, timeout=context.left - _MARGIN_S
        )
    except subprocess.TimeoutExpired as error:
        print((error.stdout or b"").decode(errors="replace"))
        say("time ran out")
        return PARTIAL
    print(done.stdout, done.stderr, flush=True)
    last = done.stdout.strip().splitlines()[-1].strip("= ") if done.stdout.strip() else ""
    if done.returncode not in (0, 5):
        raise RuntimeError(f"pytest: {last}")
    say(last)
    return DONE
