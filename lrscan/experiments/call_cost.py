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
from lrscan.experiments.registry import Experiment, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CALLS = 200  # per sample
_STEPS, _COLUMNS = 4, 3


def measure(*, device: str, seed: int, runs: int) -> Records:
    """Measure the host's time per call on a tiny tensor, with and without gradients.

    The direction "forward" is a call without gradients, "recorded" is one that autograd records,
    and "training" is a call with its backward pass. The reference is the time of ``torch.mul`` in
    the same three situations.
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
    """Return the quartiles of the milliseconds that the host spends per call."""
    samples = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        for _ in range(_CALLS):
            call()
        samples.append((time.perf_counter() - start) / _CALLS * 1e3)
    return timing.quartiles(samples[1:])


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the microseconds of the host per call on a tiny tensor, and per multiplication."""
    table = records.table
    figure, ((panel,),) = canvas.axes(1, 1, height=2.3)
    at, thickness = range(len(table)), 0.38
    middle, low, high = (1e3 * table[name] for name in ("median_ms", "q1_ms", "q3_ms"))
    bars = [
        panel.barh(
            [n - thickness / 2 for n in at],
            middle,
            xerr=[middle - low, high - middle],
            height=thickness,
            color=canvas.look("single_pass").colour,
            label="linear_recurrence",
        ),
        panel.barh(
            [n + thickness / 2 for n in at],
            1e3 * table["reference_ms"],
            height=thickness,
            color=canvas.look("torch.mul").colour,
            label="torch.mul",
        ),
    ]
    for group, ends in zip(bars, (high, 1e3 * table["reference_ms"]), strict=True):
        for bar, end, value in zip(group, ends, group.datavalues, strict=True):
            panel.annotate(
                canvas.short(value),
                (end, bar.get_y() + thickness / 2),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=canvas.TEXT,
            )
    words = {
        "forward": "without gradients",
        "recorded": "recorded by autograd",
        "training": "with the backward pass",
    }
    panel.set_yticks(at, [words[direction] for direction in table["direction"]])
    panel.tick_params(axis="y", length=0, labelsize=canvas.TEXT)
    panel.invert_yaxis()
    panel.margins(x=0.1)
    panel.grid(visible=False)
    panel.set_xlabel("microseconds of host time per call")
    costs = dict(zip(table["direction"], middle, strict=True))
    title = f"A call costs the host {canvas.short(costs['forward'])} microseconds"
    if "training" in costs:
        title += f", with its backward pass {canvas.short(costs['training'])}"
    about = f"Tensors of {_STEPS} steps and {_COLUMNS} columns; lines on the bars: quartiles"
    return canvas.labelled(figure, records, title, about, bars)


EXPERIMENT = Experiment(
    name="call_cost",
    notebook="reproduce/02_kernel_speedup",
    measure=measure,
    parameters=("device", "seed", "runs"),
    figures={
        "call_cost": Plot(
            plot,
            "Microseconds that the host spends on one call of the recurrence and on "
            "one multiplication: without gradients, recorded for a backward pass, and "
            "with the backward pass.",
        ),
    },
)
