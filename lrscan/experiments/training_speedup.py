"""The models in training with the kernel alone switched (Table 2, claim C3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas
import torch
from torch import Tensor, nn

from lrscan.core import checks
from lrscan.evidence import paper, provenance
from lrscan.evidence.figures import own_settings
from lrscan.evidence.records import Records
from lrscan.experiments import canvas, timing, training_steps
from lrscan.experiments.models import LAYERS, MODELS
from lrscan.experiments.registry import Experiment
from lrscan.experiments.resume import in_pieces
from lrscan.experiments.speedups import PaperCell, compare, speedups
from lrscan.experiments.training_steps import Step
from lrscan.experiments.verdicts import Finding
from lrscan.train.precision import full_float32

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    *,
    device: str,
    seed: int,
    events: int,
    lengths: Iterable[int],
    widths: Iterable[int],
    inputs: Iterable[int],
    names: Iterable[str],
    runs: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of a training step by algorithm, the rest of the model left alone (Table 2).

    A step is forward and backward of two stacked layers on T steps of events / T sequences, in
    float32; the gradients of all weights are taken. Results of all algorithms are compared first.
    The longest sequences are measured first.

    Args:
        events:  b T, the same for every length
        lengths: T, divisors of events
        widths:  n, hidden units
        inputs:  m, the input size that goes with each width
        names:   of :data:`lrscan.experiments.models.MODELS`
        runs:    samples of each time
        resume, until: as for :func:`lrscan.experiments.resume.in_pieces`, with a piece for each
                 model, length and width

    Raises:
        ValueError: a length that does not divide events, an unknown model, or lists that differ
            in length
    """
    where = provenance.resolve_device(device)
    sizes = dict(zip(widths, inputs, strict=True))
    lengths, names = list(lengths), list(names)
    for steps in lengths:
        if steps < 1 or events % steps:
            raise ValueError(f"events = {events} is no multiple of the length {steps}")
    if unknown := set(names) - set(MODELS):
        raise ValueError(f"a model is one of {', '.join(MODELS)}, not {min(unknown)!r}")
    cells: list[dict[str, Any]] = [
        {"model": name, "T": steps, "B": events // steps, "C": width}
        for steps, width, name in product(sorted(lengths, reverse=True), sizes, names)
    ]

    def measure_cell(number: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
        cell = cells[number]
        size = sizes[cell["C"]]
        torch.manual_seed(seed)
        x = torch.randn(cell["T"], cell["B"], size).to(where)
        net = MODELS[cell["model"]](size, cell["C"], LAYERS).to(where)
        candidates = {
            algorithm: _with_algorithm(net, algorithm, _last_square(net, x))
            for algorithm in checks.ALGORITHMS[where.type]
        }
        with full_float32():
            _check_agreement(cell["model"], candidates)
            timings = timing.time_all(candidates, where, runs)
        return training_steps.rows(timings, cell, seed, runs), {}

    parameters = {
        "events": events,
        "lengths": lengths,
        "widths": list(sizes),
        "inputs": list(sizes.values()),
        "names": names,
        "runs": runs,
    }
    origin = provenance.collect(where, parameters, seed)
    return in_pieces("training_speedup", cells, measure_cell, origin, resume=resume, until=until)


def _last_square(net: nn.Module, x: Tensor) -> Step:
    """A step whose loss is the mean square of the outputs."""
    return lambda: training_steps.gradients(net(x)[0].square().mean(), net)


def _with_algorithm(net: Any, algorithm: str, step: Step) -> Step:
    def switched() -> tuple[Tensor, ...]:
        net.algorithm = algorithm
        return step()

    return switched


def _check_agreement(name: str, candidates: Mapping[str, Step]) -> None:
    """Raise RuntimeError unless all algorithms agree on loss and gradients, within rounding."""
    results = {algorithm: step() for algorithm, step in candidates.items()}
    first, *others = results
    for algorithm in others:
        for expected, got in zip(results[first], results[algorithm], strict=True):
            if not (got - expected).abs().max() <= 1e-4 * expected.abs().max():
                raise RuntimeError(f"{name}: {algorithm} and {first} differ beyond rounding")


def summarise(records: Records) -> pandas.DataFrame:
    """Training with a serial kernel over training with another, by model, n, T and b.

    The columns are those of :func:`lrscan.experiments.speedups.speedups`.
    """
    return speedups(records, ("model", "C", "T", "B"))


@own_settings()
def plot(records: Records) -> Figure:
    """Table 2 again: training with a serial kernel over training with another, beside the paper's.

    A row for each width and serial algorithm, a column for each other one.
    """
    table = summarise(records)
    rows = table[["C", "baseline"]].drop_duplicates().sort_values("C", kind="stable")
    algorithms, names = table["algorithm"].unique(), records.table["model"].unique()
    figure, panels = canvas.axes(len(rows), len(algorithms), width=3.9, height=2.8)
    colours = canvas.colours(len(names))
    published = paper.table("table2_rnn_speedup")
    lengths = sorted({*table["T"], *published["sequence_length"]})
    for row, (width, baseline) in zip(panels, rows.itertuples(index=False), strict=True):
        for panel, algorithm in zip(row, algorithms, strict=True):
            cell = table[
                (table["C"] == width)
                & (table["baseline"] == baseline)
                & (table["algorithm"] == algorithm)
            ]
            panel.axhline(1, c="0.6", lw=1)
            for name, colour, marker in zip(names, colours, canvas.MARKERS, strict=False):
                ours = cell[cell["model"] == name].sort_values("T")
                theirs = published[published["model"] == name]
                style = {"c": colour, "marker": marker, "ms": 5}
                panel.plot(ours["T"], ours["speedup"], label=name, **style)
                panel.plot(
                    theirs["sequence_length"],
                    theirs["speedup"],
                    mfc="none",
                    ls=":",
                    lw=1,
                    label=f"{name}, paper ({paper.HARDWARE})",
                    **style,
                )
            canvas.log_axes(panel, lengths)
            canvas.plain_ticks(panel)
            panel.set_title(f"{baseline} / {algorithm}, {width} hidden units", fontsize=9)
    canvas.outer_labels(panels, "sequence length T", "speed-up")
    canvas.legend_beside(figure, panels[0][0], size=7)
    events = records.provenance["measurements"][-1]["parameters"]["events"]
    return canvas.labelled(
        figure,
        records,
        f"Table 2: training speed-up by switching the kernel, b T = {events:,}, float32\n"
        "the paper: b T = 65,536 and, by its text, 256 hidden units",
    )


def verdict(records: Records) -> Finding:
    """For every model of Table 2 the best parallel speed-up at the paper's longest length."""
    theirs = paper.table("table2_rnn_speedup")
    longest = int(theirs["sequence_length"].max())
    cells = [
        PaperCell(row.model, {"T": longest, "model": row.model}, row.speedup)
        for row in theirs[theirs["sequence_length"] == longest].itertuples()
    ]
    return compare(summarise(records), longest, cells, records.on_gpu)


EXPERIMENT = Experiment(
    name="training_speedup",
    notebook="reproduce/03_training_speedup",
    measure=measure,
    parameters=(
        "device",
        "seed",
        "events",
        "lengths",
        "widths",
        "inputs",
        "names",
        "runs",
    ),
    resumes=True,
    figures={"training_speedup": plot},
    verdict=verdict,
)
