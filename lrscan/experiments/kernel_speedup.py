"""Serial over parallel time of the operator alone, by length and features (Table 1, claim C2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.resume import in_pieces
from lrscan.experiments.speedups import PARALLEL, PaperCell, compare, fastest, speedups
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
    """Measure the time of every algorithm of the operator, over length and features (Table 1).

    Minibatch 1, float32, shape (T, m), forward, outputs allocated beforehand. The reference is
    ``torch.add`` on tensors of the same bytes. The shapes of the paper's table are measured first,
    the longest of them first.

    Args:
        device:   "auto", "cpu" or "cuda"
        seed:     of the inputs
        lengths:  T
        features: m
        runs:     samples of each time
        resume:   see :func:`lrscan.experiments.resume.in_pieces`, with a piece for each shape
        until:    likewise
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
    """Return (T, C) of every shape: those of the paper's Table 1 first, the longest first."""
    theirs = paper.table("table1_kernel_speedup")[["sequence_length", "features"]]
    known = set(theirs.itertuples(index=False, name=None))
    return sorted(product(lengths, features), key=lambda shape: (shape not in known, -shape[0]))


def _time_algorithms(
    steps: int, columns: int, where: torch.device, seed: int, runs: int
) -> list[dict[str, Any]]:
    """Return a row for each algorithm."""
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
    """Return serial over parallel times, see :func:`lrscan.experiments.speedups.speedups`."""
    return speedups(records, ("T", "C"))


@own_settings()
def plot(records: Records) -> Figure:
    """Draw Table 1 again: how many times as fast as a serial loop, and the paper's values.

    A panel for each serial loop; the paper's values are in the first, which is its own loop where
    that was measured. The lines of an algorithm have one colour, darker for more features. The
    fastest algorithm has its number at the paper's best cell.
    """
    table = summarise(records)
    baselines = list(table["baseline"].unique())
    algorithms = [name for name in PARALLEL if (table["algorithm"] == name).any()]
    features = sorted(table["C"].unique())
    published = paper.table("table1_kernel_speedup")
    theirs = published.rename(columns={"sequence_length": "T", "features": "C"})
    cell = _cell(table, theirs)
    figure, panels = canvas.axes(1, len(baselines), height=3.5, sharey=True)
    for panel, baseline in zip(panels[0], baselines, strict=True):
        panel.axhline(1, c=canvas.GREY, lw=1)
        rows = table[table["baseline"] == baseline]
        for algorithm in algorithms:
            _draw_lines(panel, rows[rows["algorithm"] == algorithm], features, algorithm)
        canvas.log_axes(panel, table["T"], published["sequence_length"])
        canvas.plain_ticks(panel, "x", steps=(1,))
        canvas.subtitle(panel, _PANELS[baseline])
        panel.set_xlabel("sequence length T")
        if records.on_gpu:
            best = _best(rows, *cell)
            canvas.callout(panel, best["T"], best["speedup"], best["algorithm"])
    first = panels[0][0]
    _draw_lines(first, theirs, features, "paper", **canvas.hollow(zorder=3))
    best = theirs.loc[theirs["speedup"].idxmax()]
    canvas.callout(first, best["T"], best["speedup"], "paper", side="lower right")
    first.set_ylabel("times as fast as the loop")
    if "serial_paper" not in baselines:
        canvas.subtitle(first, f"{_PANELS['serial']}; the paper's: over a plain loop")
    key = [canvas.mark(name, *canvas.look(name), ls="-") for name in reversed(algorithms)]
    key += [canvas.paper_mark(), None]
    greys = canvas.tints(canvas.GREY, len(features))
    key += [
        canvas.mark(f"m = {m} features", grey, ls="-", lw=4)
        for m, grey in zip(features, greys, strict=True)
    ]
    about = "The recurrence alone, forward, float32, minibatch 1"
    if records.on_gpu:
        about += f"; numbers: m = {cell[1]}"
    return canvas.labelled(figure, records, _title(records, table, cell), about, key)


_PANELS = {"serial_paper": "over a plain loop, as in the paper", "serial": "over a tuned loop"}


def _draw_lines(
    panel: Any, table: pandas.DataFrame, features: Sequence[int], name: str, **style: Any
) -> None:
    """Draw speed-up over length, a line for each number of features."""
    colour, marker = canvas.look(name)
    for m, tint in zip(features, canvas.tints(colour, len(features)), strict=True):
        line = table[table["C"] == m].sort_values("T")
        panel.plot(line["T"], line["speedup"], marker=marker, ms=5, c=tint, **style)


def _cell(table: pandas.DataFrame, theirs: pandas.DataFrame) -> tuple[int, int]:
    """Return (T, C) of the paper's best cell if it was measured, else of the longest and widest."""
    best = theirs.loc[theirs["speedup"].idxmax()]
    cell = (int(best["T"]), int(best["C"]))
    measured = set(table[["T", "C"]].itertuples(index=False, name=None))
    return cell if cell in measured else max(measured)


def _best(rows: pandas.DataFrame, steps: int, columns: int) -> pandas.Series:
    """Return the row of the fastest parallel algorithm in a cell."""
    cell = rows[(rows["T"] == steps) & (rows["C"] == columns) & rows["algorithm"].isin(PARALLEL)]
    return cell.loc[cell["speedup"].idxmax()]


def _title(records: Records, table: pandas.DataFrame, cell: tuple[int, int]) -> str:
    """Return the finding: in one cell on a GPU, over all cells on a CPU."""
    if not records.on_gpu:
        ratios = table.loc[table["algorithm"].isin(PARALLEL), "speedup"]
        low, high = (canvas.short(one) for one in (ratios.min(), ratios.max()))
        return f"On this CPU the parallel scan is {low} to {high} times as fast as the loop"
    parts, loops = [], {"serial_paper": "a plain loop", "serial": "a tuned one"}
    for baseline, rows in table.groupby("baseline", sort=False):
        ratio = canvas.short(_best(rows, *cell)["speedup"])
        parts.append(f"{ratio} times as fast as {loops[baseline]}")
    return f"Parallel over {cell[0]:,} steps: {', '.join(parts)}"


def verdict(records: Records) -> Finding:
    """Return the verdict on the best parallel speed-up at the cell where the paper's is best."""
    theirs = paper.table("table1_kernel_speedup")
    best = theirs.loc[theirs["speedup"].idxmax()]
    steps = int(best["sequence_length"])
    cell = PaperCell("", {"T": steps, "C": int(best["features"])}, best["speedup"])
    return compare(summarise(records), steps, [cell], records.on_gpu)


def headline(records: Records) -> str:
    """Return the best parallel speed-up in the cell where the paper's is largest."""
    theirs = paper.table("table1_kernel_speedup")
    best = theirs.loc[theirs["speedup"].idxmax()]
    table = summarise(records)
    at = (table["T"] == best["sequence_length"]) & (table["C"] == best["features"])
    return fastest(table[at], records.on_gpu)


EXPERIMENT = Experiment(
    name="kernel_speedup",
    notebook="reproduce/02_kernel_speedup",
    measure=measure,
    parameters=("device", "seed", "lengths", "features", "runs"),
    resumes=True,
    figures={
        "kernel_speedup": Plot(
            plot,
            "How many times as fast as a serial loop the parallel algorithms are, over sequence "
            "length, for several numbers of features. There is a panel for each serial loop. "
            "Hollow markers are the paper's Table 1, measured on a K80.",
        ),
    },
    verdict=verdict,
    headline=headline,
)
