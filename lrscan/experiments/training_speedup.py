"""Training of the models with only the kernel switched (Table 2, claim C3)."""

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
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.resume import in_pieces
from lrscan.experiments.speedups import PARALLEL, PaperCell, compare, fastest, speedups
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
    """Measure the time of a training step by algorithm, with the rest of the model fixed (Table 2).

    A step is forward and backward of two stacked layers on events / T sequences of T steps, in
    float32, with the gradients of all weights. The results of all algorithms are compared first.
    The longest sequences are measured first.

    Args:
        device:  "auto", "cpu" or "cuda"
        seed:    of weights and inputs
        events:  b T, the same for every length
        lengths: T, divisors of events
        widths:  n, hidden units
        inputs:  m, the input size of each width
        names:   of :data:`lrscan.experiments.models.MODELS`
        runs:    samples of each time
        resume:  see :func:`lrscan.experiments.resume.in_pieces`, with a piece for each model,
                 length and width
        until:   likewise

    Raises:
        ValueError: a length does not divide events, a model is unknown, or widths and inputs differ
            in number
    """
    where = provenance.resolve_device(device)
    sizes = dict(zip(widths, inputs, strict=True))
    lengths, names = list(lengths), list(names)
    for steps in lengths:
        if steps < 1 or events % steps:
            raise ValueError(f"events = {events} is not a multiple of the length {steps}")
    if unknown := set(names) - set(MODELS):
        raise ValueError(f"model {min(unknown)!r}: choose from {', '.join(MODELS)}")
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
    """Return a step whose loss is the mean square of the outputs."""
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
                raise RuntimeError(f"{name}: {algorithm} and {first} differ by more than rounding")


def summarise(records: Records) -> pandas.DataFrame:
    """Return training times with a serial kernel over those with another, by model, n, T and b.

    The columns are those of :func:`lrscan.experiments.speedups.speedups`.
    """
    return speedups(records, ("model", "C", "T", "B"))


@own_settings()
def plot(records: Records) -> Figure:
    """Draw Table 2 again: how many times as fast as with a serial loop models train.

    A row for each width, a column for each serial loop. The parallel algorithm is the single pass
    where it was measured, else the blocked one. The paper's values are in the first column.
    """
    table = summarise(records)
    table = table[table["algorithm"].isin(PARALLEL)]
    algorithm = [name for name in PARALLEL if (table["algorithm"] == name).any()][-1]
    table = table[table["algorithm"] == algorithm]
    widths, baselines = sorted(table["C"].unique()), list(table["baseline"].unique())
    names = [name for name in MODELS if (table["model"] == name).any()]
    published = paper.table("table2_rnn_speedup").rename(columns={"sequence_length": "T"})
    lengths = sorted({*table["T"], *published["T"]})
    side_by_side = len(baselines) == 1
    shape = (1, len(widths)) if side_by_side else (len(widths), len(baselines))
    figure, panels = canvas.axes(*shape, height=2.6, sharex=True, sharey=True)
    cells = list(product(widths, baselines))
    for panel, (width, baseline) in zip(panels.flat, cells, strict=True):
        panel.axhline(1, c=canvas.GREY, lw=1)
        rows = table[(table["C"] == width) & (table["baseline"] == baseline)]
        for name in names:
            colour, marker = canvas.look(name)
            style = {"c": colour, "marker": marker, "ms": 5}
            ours = rows[rows["model"] == name].sort_values("T")
            panel.plot(ours["T"], ours["speedup"], **style)
            if baseline == baselines[0]:
                theirs = published[published["model"] == name]
                panel.plot(theirs["T"], theirs["speedup"], **style | canvas.hollow())
        canvas.log_axes(panel, lengths)
        canvas.plain_ticks(panel, "x", steps=(1,) if records.on_gpu else (1, 2, 5))
        canvas.subtitle(panel, f"{width} units, over {_LOOPS[baseline]}")
    for panel in panels[-1]:
        panel.set_xlabel("sequence length T")
    for row in panels:
        row[0].set_ylabel("times as fast as the loop")
    key = [canvas.mark(name, *canvas.look(name), ls="-") for name in names]
    key.append(canvas.paper_mark())
    events = records.provenance["measurements"][-1]["parameters"]["events"]
    about = f"A training step with {algorithm} over one with a serial loop, {events:,} events, "
    about += "float32. The paper: 65,536 events and, by its text, 256 units"
    return canvas.labelled(figure, records, _title(records, table), about, key)


_LOOPS = {"serial_paper": "a plain loop", "serial": "a tuned loop"}


def _title(records: Records, table: pandas.DataFrame) -> str:
    """Return the finding: the range over models and widths at the longest sequences."""
    longest = table["T"].max()
    parts = []
    for baseline, rows in table[table["T"] == longest].groupby("baseline", sort=False):
        low, high = (canvas.short(one) for one in (rows["speedup"].min(), rows["speedup"].max()))
        parts.append(f"{low} to {high} times as fast as with {_LOOPS[baseline]}")
    return f"Training on {longest:,} steps is {', '.join(parts)}"


def verdict(records: Records) -> Finding:
    """Return the verdict on the best speed-up of every model at the paper's longest length."""
    theirs = paper.table("table2_rnn_speedup")
    longest = int(theirs["sequence_length"].max())
    cells = [
        PaperCell(row.model, {"T": longest, "model": row.model}, row.speedup)
        for row in theirs[theirs["sequence_length"] == longest].itertuples()
    ]
    return compare(summarise(records), longest, cells, records.on_gpu)


def headline(records: Records) -> str:
    """Return the best parallel speed-up of the model and length where the paper's is largest."""
    theirs = paper.table("table2_rnn_speedup")
    best = theirs.loc[theirs["speedup"].idxmax()]
    table = summarise(records)
    at = (table["T"] == best["sequence_length"]) & (table["model"] == best["model"])
    return fastest(table[at], records.on_gpu)


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
    figures={
        "training_speedup": Plot(
            plot,
            "How many times as fast models train when only the kernel changes, over sequence "
            "length, for SRU, QRNN and GILR-LSTM. There is a panel for each width and serial "
            "loop. Hollow markers are the paper's Table 2.",
        ),
    },
    verdict=verdict,
    headline=headline,
)
