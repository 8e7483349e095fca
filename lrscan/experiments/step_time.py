"""Time of a training step of the GILR-LSTM over the length of a sequence, up to one million."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrscan.evidence import provenance, records
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, timing, training_steps
from lrscan.experiments.models import LAYERS
from lrscan.experiments.registry import Experiment, Plot
from lrscan.nn import GILRLSTM, chrono
from lrscan.tasks import problem_2b
from lrscan.train.precision import full_float32

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    *, device: str, seed: int, step_lengths: Iterable[int], hidden: int, runs: int = 5
) -> Records:
    """Measure the time of a training step of GILR-LSTM on problem 2b over length, minibatch 1.

    The model has two layers, and inputs of width 128 as indices. A step is forward and backward.
    The reference is the time at the shortest length, times the ratio of the lengths: a time equal
    to it means a cost in proportion to T.
    """
    where = provenance.resolve_device(device)
    lengths = sorted(step_lengths)
    torch.manual_seed(seed)
    net = GILRLSTM(128, hidden, LAYERS, device=where)
    net.reset_parameters(**chrono(lengths[-1]))
    read_out = nn.Linear(hidden, 1).to(where)
    candidates = {}
    for steps in lengths:
        tokens, label = problem_2b(steps, 1, seed=seed, device=where)
        candidates[steps] = training_steps.of_read_out(net, read_out, tokens, _sign_loss(label))
    with full_float32():
        timings = timing.time_all(candidates, where, runs)
    rows = []
    for steps in lengths:
        cell = {"model": "GILR-LSTM", "T": steps, "B": 1, "C": hidden}
        (row,) = training_steps.rows({"auto": timings[steps]}, cell, seed, runs)
        rows.append(row | {"reference_ms": timings[lengths[0]][1] * steps / lengths[0]})
    parameters = {"step_lengths": lengths, "hidden": hidden, "runs": runs}
    return records.write("step_time", rows, provenance.collect(where, parameters, seed))


def _sign_loss(label: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logit: nn.functional.binary_cross_entropy_with_logits(logit.squeeze(-1), label)


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the time of a training step over length, and one in proportion to length."""
    table = records.table.sort_values("T")
    figure, ((panel,),) = canvas.axes(1, 1, height=3.0)
    seconds = table["median_ms"].max() >= 1000
    scale, unit = (1e-3, "s") if seconds else (1.0, "ms")
    proportion = scale * table["reference_ms"]
    panel.plot(table["T"], proportion, "--", c=canvas.GREY, lw=1.2)
    middle = scale * table["median_ms"]
    low, high = middle - scale * table["q1_ms"], scale * table["q3_ms"] - middle
    colour, marker = canvas.look("GILR-LSTM")
    panel.errorbar(table["T"], middle, (low, high), marker=marker, c=colour, capsize=3)
    canvas.log_axes(panel, table["T"])
    canvas.plain_ticks(panel)
    panel.set_xlabel("sequence length T")
    panel.set_ylabel("seconds per training step" if seconds else "milliseconds per training step")
    first, last = (table.iloc[n] for n in (0, -1))
    # On the side of the measured line on which the other line is not.
    side: dict[str, Any] = {"side": "upper left"}
    if middle.iloc[-1] < proportion.iloc[-1]:
        side = {"side": "lower left", "gap": 22}
    canvas.callout(panel, last["T"], middle.iloc[-1], "GILR-LSTM", unit=f" {unit}", **side)
    panel.margins(y=0.15)
    ratio = canvas.short(last["median_ms"] / first["median_ms"])
    title = f"{last['T'] / first['T']:g} times as many time steps: "
    title += f"a training step takes {ratio} times as long"
    about = f"GILR-LSTM, two layers of {last['C']} units, minibatch 1, float32"
    key = [
        canvas.mark("measured, median and quartiles", colour, marker, ls="-"),
        canvas.mark("in proportion to T", canvas.GREY, ls="--"),
    ]
    return canvas.labelled(figure, records, title, about, key)


EXPERIMENT = Experiment(
    name="step_time",
    notebook="reproduce/06_one_million_steps",
    measure=measure,
    parameters=("device", "seed", "step_lengths", "hidden"),
    options=("runs",),
    figures={
        "step_time": Plot(
            plot,
            "Time of a training step of a GILR-LSTM over sequence length, next to a dashed line "
            "in proportion to the length.",
        ),
    },
)
