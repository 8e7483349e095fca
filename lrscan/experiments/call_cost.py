"""The cost of a call on a tiny tensor: the host's time, without and with gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from lrscan.core import api
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, timing
from lrscan.experiments.inputs import draw_inputs
from lrscan.experiments.registry import Experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CALLS = 200  # of a sample
_STEPS, _COLUMNS = 4, 3


def measure(*, device: str, seed: int, runs: int) -> Records:
    """Time of a call on a tiny tensor, with and without gradients: what the host spends.

    "forward" is a call without gradients, "recorded" one that autograd records, "training" a call
    with its backward pass. The reference is the same of one multiplication.
    """
    where = provenance.resolve_device(device)
    a, x, _ = draw_inputs(_STEPS, _COLUMNS, torch.float32, where, seed)
    leaves = [t.clone().requires_grad_() for t in (a, x)]
    dh = torch.ones_like(x)

    def training(function: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, dh)

    calls: dict[tuple[str, str], Callable[[], object]] = {
        ("forward", "auto"): lambda: api.linear_recurrence(a, x),
        ("forward", "reference"): lambda: torch.mul(a, x),
        ("recorded", "auto"): lambda: api.linear_recurrence(*leaves),
        ("recorded", "reference"): lambda: torch.mul(*leaves),
        ("training", "auto"): training(api.linear_recurrence),
        ("training", "reference"): training(torch.mul),
    }
    times = {key: _time_on_host(call, runs) for key, call in calls.items()}
    common = {
        "algorithm": "auto",
        "dtype": "float32",
        "layout": "TC",
        "T": _STEPS,
        "B": 1,
        "C": _COLUMNS,
        "seed": seed,
        "profile": workspace.profile(),
        "runs": runs,
    }
    rows = [
        common
        | {"direction": direction, "reference_ms": times[direction, "reference"][1]}
        | timing.columns(times[direction, "auto"])
        for direction in ("forward", "recorded", "training")
    ]
    return records.write("call_cost", rows, provenance.collect(where, {"runs": runs}, seed))


def _time_on_host(call: Callable[[], object], runs: int) -> timing.Quartiles:
    """Quartiles of the milliseconds that the host spends in a call."""
    samples = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        for _ in range(_CALLS):
            call()
        samples.append((time.perf_counter() - start) / _CALLS * 1e3)
    return timing.quartiles(samples[1:])


@own_settings()
def plot(records: Records) -> Figure:
    """Microseconds of the host for one call on a tiny tensor, beside those of a multiplication."""
    table = records.table
    figure, panels = canvas.axes(1, 1, width=5.4, height=2.4)
    panel, thickness = panels[0][0], 0.38
    at = range(len(table))
    colours = canvas.colours(2)
    middle = 1e3 * table["median_ms"]
    spread = [middle - 1e3 * table["q1_ms"], 1e3 * table["q3_ms"] - middle]
    ours = {"height": thickness, "color": colours[0], "label": "linear_recurrence"}
    panel.barh([n - thickness / 2 for n in at], middle, xerr=spread, **ours)
    theirs = {"height": thickness, "color": colours[1], "label": "torch.mul"}
    panel.barh([n + thickness / 2 for n in at], 1e3 * table["reference_ms"], **theirs)
    words = {
        "forward": "without gradients",
        "recorded": "recorded for a backward pass",
        "training": "and its backward pass",
    }
    panel.set_yticks(at, [words[direction] for direction in table["direction"]], fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("microseconds a call (bars: quartiles)", fontsize=8)
    panel.legend(fontsize=7)
    return canvas.labelled(figure, records, "What a call costs the host, 4 steps of 3 columns")


EXPERIMENT = Experiment(
    name="call_cost",
    notebook="reproduce/02_kernel_speedup",
    measure=measure,
    parameters=("device", "seed", "runs"),
    figures={"call_cost": plot},
)
