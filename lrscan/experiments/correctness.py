"""Errors of the operator compared with what rounding allows (claim C1)."""

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
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.verdicts import HOLDS, NOT_REPRODUCED, Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    dtypes: Iterable[str],
) -> Records:
    """Measure the error of every algorithm against the float64 loop, and the bound of rounding.

    Coefficients have either sign. In every other column, beginning with the first, they are so
    close to one that a state lasts about a thousand steps, so that a wrong carry shows far away. In
    the other columns a state is forgotten within tens of steps.

    Error and bound are relative to the largest exact value. For the gradients the worst of da, dx
    and dh0 is reported: the one that comes closest to its bound. A NaN counts as an infinite error.

    Raises:
        ValueError: the operator does not support one of the dtypes
    """
    where = provenance.resolve_device(device)
    lengths, features, dtypes = list(lengths), list(features), list(dtypes)
    if unknown := [name for name in dtypes if name not in KINDS]:
        raise ValueError(f"dtype {unknown[0]!r}: choose from {', '.join(KINDS)}")
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
    """Return error and bound of the element closest to its bound, over the largest value."""
    error = (got.cpu() - exact).abs().nan_to_num(nan=math.inf, posinf=math.inf)
    at = (error / bound).nan_to_num(nan=0, posinf=math.inf).flatten().argmax()
    scale = exact.abs().max()
    return (error.flatten()[at] / scale).item(), (bound.flatten()[at] / scale).item()


@own_settings()
def plot(records: Records) -> Figure:
    """Draw the error over the bound that rounding allows, by length.

    A panel for each direction, a line for each dtype. A mark is of the check that came closest to
    its bound, whatever the algorithm and the number of columns.
    """
    table = records.table.assign(share=records.table["error"] / records.table["bound"])
    dtypes = [name for name in canvas.LOOKS if (table["dtype"] == name).any()]
    figure, panels = canvas.axes(1, 2, height=3.3, sharey=True)
    for panel, direction in zip(panels[0], ("forward", "backward"), strict=True):
        panel.axhline(1, c=canvas.GREY, ls="--", lw=1.2)
        for dtype in dtypes:
            cell = table[(table["dtype"] == dtype) & (table["direction"] == direction)]
            worst = cell.groupby("T")["share"].max()
            colour, marker = canvas.look(dtype)
            panel.plot(worst.index, worst, marker=marker, ms=5, lw=1.2, c=colour)
        panel.set_xscale("log", base=2)
        canvas.length_ticks(panel, table["T"])
        panel.set_xlabel("sequence length T")
        canvas.subtitle(panel, direction)
    worst = table["share"].max()
    panels[0][0].set_ylim(0, 1.1 * max(1, worst) if math.isfinite(worst) else 2)
    panels[0][0].set_ylabel("error over the bound")
    key = [canvas.mark(name, *canvas.look(name), ls="-") for name in dtypes]
    key.append(canvas.mark("all that rounding allows", canvas.GREY, ls="--"))
    about = f"Worst of {', '.join(sorted(table['algorithm'].unique()))}, against a float64 loop"
    title = "No error exceeds what rounding allows" if worst <= 1 else "An error exceeds its bound"
    title += f": {len(table):,} checks, the worst at {worst:.3f} of the bound"
    return canvas.labelled(figure, records, title, about, key)


def verdict(records: Records) -> Finding:
    """Return the largest error over its bound, and whether it is within the bound."""
    table = records.table.assign(share=records.table["error"] / records.table["bound"])
    worst = table.loc[table["share"].idxmax()]
    text = f"error at most {worst['share']:.3f} of what rounding allows, in {len(table)} checks"
    text += f"; the worst is in {worst['dtype']}"
    return Finding(text, HOLDS if worst["share"] <= 1 else NOT_REPRODUCED)


def headline(records: Records) -> str:
    """Return the largest error as a share of its bound."""
    largest = (records.table["error"] / records.table["bound"]).max()
    return f"{largest:.3g} of the bound"


EXPERIMENT = Experiment(
    name="correctness",
    notebook="reproduce/01_correctness",
    measure=measure,
    parameters=("device", "seed", "lengths", "features", "dtypes"),
    figures={
        "correctness": Plot(
            plot,
            "Largest error divided by what rounding allows, over sequence length, forward on "
            "the left and backward on the right, with a line for each dtype. Every marker is "
            "below the dashed line at one.",
        ),
    },
    verdict=verdict,
    headline=headline,
)
