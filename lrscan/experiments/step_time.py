"""The time of a training step of the GILR-LSTM over the length of a sequence, to one million."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lrscan.evidence import provenance, records
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, timing, training_steps
from lrscan.experiments.models import LAYERS
from lrscan.experiments.registry import Experiment
from lrscan.nn import GILRLSTM, chrono
from lrscan.tasks import problem_2b
from lrscan.train.precision import full_float32

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    *, device: str, seed: int, step_lengths: Iterable[int], hidden: int, runs: int = 5
) -> Records:
    """Time of a training step of GILR-LSTM on problem 2b over length, minibatch 1.

    Two layers, inputs of width 128 as indices, forward and backward. The reference is the time at
    the shortest length, times the ratio of the lengths: equal times mean a cost in proportion to T.
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
    """Time of a training step over length, beside one in proportion to length."""
    table = records.table.sort_values("T")
    figure, ((panel,),) = canvas.axes(1, 1, width=5.6, height=3.6)
    panel.plot(table["T"], table["reference_ms"] / 1e3, "k--", lw=1, label="in proportion to T")
    panel.errorbar(
        table["T"],
        table["median_ms"] / 1e3,
        yerr=[
            (table["median_ms"] - table["q1_ms"]) / 1e3,
            (table["q3_ms"] - table["median_ms"]) / 1e3,
        ],
        fmt="o-",
        capsize=3,
        label="measured (quartiles)",
    )
    canvas.log_axes(panel, sorted(table["T"]))
    canvas.plain_ticks(panel)
    panel.set_xlabel("sequence length T")
    panel.set_ylabel("seconds a step")
    panel.legend(fontsize=8)
    hidden = table["C"].iloc[0]
    title = f"A training step of GILR-LSTM, two layers of {hidden}, minibatch 1, float32"
    return canvas.labelled(figure, records, title)


EXPERIMENT = Experiment(
    name="step_time",
    notebook="reproduce/06_one_million_steps",
    measure=measure,
    parameters=("device", "seed", "step_lengths", "hidden"),
    options=("runs",),
    figures={"step_time": plot},
)
