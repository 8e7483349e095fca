"""The operator alone: serial over parallel time, by length and features (Table 1, claim C2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas
import torch
from torch import Tensor

from lrscan.core import checks, sweep
from lrscan.evidence import paper, provenance, workspace
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import agreement, canvas, timing
from lrscan.experiments.inputs import draw_inputs
from lrscan.experiments.registry import Experiment
from lrscan.experiments.resume import in_pieces
from lrscan.experiments.speedups import PaperCell, compare, speedups
from lrscan.experiments.verdicts import Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Steps that are compared with the float64 loop.
_CHECKED_STEPS = 4096


def measure(
    *,
    device: str,
    seed: int,
    lengths: Iterable[int],
    features: Iterable[int],
    runs: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of every algorithm of the operator alone, over length and features (Table 1).

    Minibatch 1, float32, shape (T, m), forward, outputs allocated beforehand. The reference is
    ``torch.add`` on tensors of the same bytes. The shapes of the paper's table are measured first,
    the longest of them first. ``resume`` and ``until`` as for
    :func:`lrscan.experiments.resume.in_pieces`, with a piece for each shape.
    """
    where = provenance.resolve_device(device)
    parameters = {"lengths": list(lengths), "features": list(features), "runs": runs}
    shapes = in_order(lengths, features)
    return in_pieces(
        "kernel_speedup",
        [{"T": steps, "C": columns} for steps, columns in shapes],
        lambda number: (_time_algorithms(*shapes[number], where, seed, runs), {}),
        provenance.collect(where, parameters, seed),
        resume=resume,
        until=until,
    )


def in_order(lengths: Iterable[int], features: Iterable[int]) -> list[tuple[int, int]]:
    """(T, C) of every shape: those of the paper's Table 1 first, among these the longest first."""
    theirs = paper.table("table1_kernel_speedup")[["sequence_length", "features"]]
    known = set(theirs.itertuples(index=False, name=None))
    return sorted(product(lengths, features), key=lambda shape: (shape not in known, -shape[0]))


def _time_algorithms(
    steps: int, columns: int, where: torch.device, seed: int, runs: int
) -> list[dict[str, Any]]:
    """A row for each algorithm."""
    a, x, _ = draw_inputs(steps, columns, torch.float32, where, seed)
    out = torch.empty_like(x)
    candidates: dict[str, Callable[[], object]] = {
        name: _sweep_into(a, x, out, name) for name in checks.ALGORITHMS[where.type]
    }
    agreement.check(candidates, out, a, x, 0, _CHECKED_STEPS)
    candidates["add"] = lambda: torch.add(a, x, out=out)
    timings = timing.time_all(candidates, where, runs)
    reference = timings.pop("add")
    common = {
        "direction": "forward",
        "dtype": "float32",
        "layout": "TC",
        "T": steps,
        "B": 1,
        "C": columns,
        "seed": seed,
        "profile": workspace.profile(),
        "runs": runs,
        "bytes": 3 * a.element_size() * a.numel(),
        "reference_ms": reference[1],
    }
    return [
        {"algorithm": algorithm} | timing.columns(quartiles) | common
        for algorithm, quartiles in timings.items()
    ]


def _sweep_into(a: Tensor, x: Tensor, out: Tensor, algorithm: str) -> Callable[[], object]:
    return lambda: sweep.forward(a, x, None, 0, False, algorithm, out=out)


def summarise(records: Records) -> pandas.DataFrame:
    """Serial over other time, see :func:`lrscan.experiments.speedups.speedups`."""
    return speedups(records, ("T", "C"))


@own_settings()
def plot(records: Records) -> Figure:
    """Table 1 again: time of a serial kernel over that of a parallel one, beside the paper's.

    A panel for each pair of algorithms, a row for each serial one.
    """
    table = summarise(records)
    baselines, algorithms = (list(table[name].unique()) for name in ("baseline", "algorithm"))
    figure, panels = canvas.axes(len(baselines), len(algorithms), width=4.6, height=3.6)
    ours = sorted(table["C"].unique())
    colours = dict(zip(ours, canvas.colours(len(ours)), strict=True))
    published = paper.table("table1_kernel_speedup")
    for (baseline, row), (algorithm, column) in canvas.grid(baselines, algorithms):
        panel = panels[row][column]
        pair = table[(table["baseline"] == baseline) & (table["algorithm"] == algorithm)]
        panel.axhline(1, c="0.6", lw=1)
        for features, marker in zip(ours, canvas.MARKERS, strict=False):
            line = pair[pair["C"] == features]
            style = {"c": colours[features], "marker": marker}
            panel.plot(line["T"], line["speedup"], label=f"m = {features}", **style)
            theirs = published[published["features"] == features]
            panel.plot(
                theirs["sequence_length"],
                theirs["speedup"],
                mfc="none",
                ls=":",
                lw=1,
                label=f"m = {features}, paper ({paper.HARDWARE})",
                **style,
            )
        canvas.log_axes(panel, sorted(table["T"].unique()))
        canvas.plain_ticks(panel)
        panel.set_title(f"{baseline} / {algorithm}", fontsize=9)
    canvas.outer_labels(panels, "sequence length T", "speed-up (above 1: parallel is faster)")
    panels[0][0].legend(fontsize=7)
    title = "Table 1: serial over parallel time, minibatch 1, float32"
    return canvas.labelled(figure, records, title)


def verdict(records: Records) -> Finding:
    """The best parallel speed-up at the length and number of features of Table 1's best cell."""
    theirs = paper.table("table1_kernel_speedup")
    best = theirs.loc[theirs["speedup"].idxmax()]
    steps = int(best["sequence_length"])
    cell = PaperCell("", {"T": steps, "C": int(best["features"])}, best["speedup"])
    return compare(summarise(records), steps, [cell], records.on_gpu)


EXPERIMENT = Experiment(
    name="kernel_speedup",
    notebook="reproduce/02_kernel_speedup",
    measure=measure,
    parameters=("device", "seed", "lengths", "features", "runs"),
    resumes=True,
    figures={"kernel_speedup": plot},
    verdict=verdict,
)
