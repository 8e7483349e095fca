"""The operator's errors, beside what rounding allows (claim C1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lrscan.core import api, checks
from lrscan.core.dtypes import KINDS
from lrscan.core.reference import oracle
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas
from lrscan.experiments.inputs import draw_inputs, lasting
from lrscan.experiments.registry import Experiment
from lrscan.experiments.verdicts import HOLDS, NOT_REPRODUCED, Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# An error of zero has no place on a logarithmic axis: it is drawn on the lower edge, here.
FLOOR = 1e-3


def measure(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    dtypes: Iterable[str],
) -> Records:
    """Errors of every algorithm against the float64 loop, beside the bound that rounding allows.

    Coefficients have either sign. In every other column, beginning with the first, they are so near
    one that a state lasts some thousand steps, which shows what a carry brings from far away. In
    the other columns a state is forgotten within tens of steps.

    Error and bound are relative to the largest exact value. For the gradients the worst of da, dx
    and dh0 is reported: the one that comes closest to its bound. An error that is no number is
    infinite.

    Raises:
        ValueError: a dtype that the operator does not take
    """
    where = provenance.resolve_device(device)
    lengths, features, dtypes = list(lengths), list(features), list(dtypes)
    if unknown := [name for name in dtypes if name not in KINDS]:
        raise ValueError(f"a dtype is one of {', '.join(KINDS)}, not {unknown[0]!r}")
    parameters = {"lengths": lengths, "features": features, "dtypes": dtypes}
    rows = []
    for name, steps, columns in product(dtypes, lengths, features):
        dtype = getattr(torch, name)
        a, x, h0 = draw_inputs(steps, columns, dtype, where, seed)
        a[:, ::2] = lasting(a[:, ::2])
        dh = draw_inputs(steps, columns, dtype, where, seed + 1)[1]
        exact = oracle(a.cpu(), x.cpu(), h0.cpu(), dh.cpu())
        for algorithm in checks.ALGORITHMS[where.type]:
            tensors = [tensor.clone().requires_grad_() for tensor in (a, x, h0)]
            h = api.linear_recurrence(*tensors, algorithm=algorithm)
            got = [h.detach(), *torch.autograd.grad(h, tensors, dh)]
            errors = [_worst(one, *pair) for one, pair in zip(got, exact, strict=True)]
            identity = {
                "algorithm": algorithm,
                "dtype": name,
                "layout": "TC",
                "T": steps,
                "B": 1,
                "C": columns,
                "seed": seed,
                "profile": workspace.profile(),
            }
            for direction, group in (("forward", errors[:1]), ("backward", errors[1:])):
                error, bound = max(group, key=lambda pair: pair[0] / pair[1])
                rows.append(identity | {"direction": direction, "error": error, "bound": bound})
    return records.write("correctness", rows, provenance.collect(where, parameters, seed))


def _worst(got: Tensor, exact: Tensor, bound: Tensor) -> tuple[float, float]:
    """(error, bound) at the element that comes closest to its bound, over the largest value."""
    error = (got.cpu() - exact).abs().nan_to_num(nan=math.inf, posinf=math.inf)
    at = (error / bound).nan_to_num(nan=0, posinf=math.inf).flatten().argmax()
    scale = exact.abs().max()
    return (error.flatten()[at] / scale).item(), (bound.flatten()[at] / scale).item()


@own_settings()
def plot(records: Records) -> Figure:
    """Error of every algorithm over the bound that rounding allows, by length.

    A column for each dtype; forward above, backward below. A mark is of the check that came closest
    to its bound, whatever the number of columns.
    """
    table = records.table.assign(share=records.table["error"] / records.table["bound"])
    dtypes, algorithms = list(table["dtype"].unique()), sorted(table["algorithm"].unique())
    figure, panels = canvas.axes(2, len(dtypes), width=3.4, height=2.7)
    colours = canvas.colours(len(algorithms))
    for (direction, row), (dtype, column) in canvas.grid(["forward", "backward"], dtypes):
        panel = panels[row][column]
        cell = table[(table["dtype"] == dtype) & (table["direction"] == direction)]
        worst = cell.groupby(["algorithm", "T"])["share"].max()
        panel.axhline(1, c="k", ls="--", lw=1, label="all that rounding allows")
        for k, (algorithm, colour, marker) in enumerate(
            zip(algorithms, colours, canvas.MARKERS, strict=False)
        ):
            size = 9 - 2 * k  # equal errors show as nested markers
            one = worst[algorithm].clip(lower=FLOOR)
            panel.plot(one.index, one, marker, ms=size, mfc="none", c=colour, label=algorithm)
        canvas.log_axes(panel, sorted(table["T"].unique()))
        panel.set_ylim(FLOOR * 0.7, max(2, 2 * worst.max()))
        panel.set_title(f"{dtype}, {direction}", fontsize=9)
    canvas.outer_labels(panels, "sequence length T", "error / bound")
    canvas.legend_beside(figure, panels[0][0], size=8)
    return canvas.labelled(
        figure,
        records,
        "Error against the serial float64 loop, over what rounding allows\n"
        "(zero is drawn on the lower edge)",
    )


def verdict(records: Records) -> Finding:
    """The largest error over its bound."""
    table = records.table.assign(share=records.table["error"] / records.table["bound"])
    worst = table.loc[table["share"].idxmax()]
    text = f"error at most {worst['share']:.3f} of what rounding allows, in {len(table)} checks"
    text += f"; the worst in {worst['dtype']}"
    return Finding(text, HOLDS if worst["share"] <= 1 else NOT_REPRODUCED)


EXPERIMENT = Experiment(
    name="correctness",
    notebook="reproduce/01_correctness",
    measure=measure,
    parameters=("device", "seed", "lengths", "features", "dtypes"),
    figures={"correctness": plot},
    verdict=verdict,
)
