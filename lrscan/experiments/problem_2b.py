"""Training on problem 2b with several seeds and the best settings found (Table 3, claim C6)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import torch

from lrscan.evidence import paper
from lrscan.evidence.records import Records
from lrscan.experiments import training_runs
from lrscan.experiments.problem_2b_search import chosen, search_records
from lrscan.experiments.registry import Experiment, Plot
from lrscan.experiments.training_figures import learning_curves
from lrscan.experiments.training_runs import RIVALS, SEARCHED, TASK, outcomes, span, spans
from lrscan.experiments.verdicts import (
    CPU_HOLDS,
    HOLDS,
    NOT_REPRODUCED,
    NOT_TRIED,
    PARTLY,
    UNDECIDED,
    WEAKER,
    Finding,
    times,
)
from lrscan.train import Settings
from lrscan.train.settings import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SURE = 0.9  # share of pairs of runs, one of each model, that must have the same winner
_FEWEST_RUNS = 3  # of each model: with fewer, a common winner of all pairs may be luck


def measure(
    *,
    device: str,
    lengths: Sequence[int],
    grown_lengths: Sequence[int],
    seeds: Sequence[int],
    hidden: int,
    batch: int,
    iterations: int,
    sequences: int,
    matched: bool,
    apart_lengths: Sequence[int],
    names: Sequence[str] = RIVALS,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Train every model on problem 2b with several seeds and its best settings (Table 3).

    All runs of the first seed come first, then those of the next. Within a seed the GILR-LSTM comes
    first.

    Args:
        device:        "auto", "cpu" or "cuda"
        lengths:       T without a curriculum
        grown_lengths: lengths that a curriculum reaches
        seeds:         of the runs
        hidden:        units of a layer
        batch:         sequences in a minibatch
        iterations:    after which a run gives up
        sequences:     fresh sequences for the accuracy at the end
        matched:       train another LSTM too, with as many parameters as the GILR-LSTM
        apart_lengths: lengths at which both are also trained with ``distractors="apart"``
        names:         of models, see :class:`lrscan.train.Settings`
        resume:        see :func:`lrscan.experiments.training_runs.train_all`
        until:         likewise

    Raises:
        FileNotFoundError: there are no records of a search, of this device or another
    """
    found = chosen(search_records(device))
    sizes = [(name, hidden) for name in names]
    if matched and "LSTM" in names:
        sizes.append(("LSTM", matched_hidden("LSTM", "GILRLSTM", hidden)))
    tasks = [("any", *one) for one in spans(lengths, grown_lengths)]
    tasks += [("apart", steps, 0) for steps in apart_lengths]
    runs = [
        Settings(
            model=name,
            steps=steps,
            start_steps=start,
            hidden=units,
            batch=batch,
            distractors=kind,
            iterations=iterations,
            seed=seed,
            **_nearest(found, name, steps, start),
        )
        for seed, (name, units), (kind, steps, start) in product(seeds, sizes, tasks)
    ]
    return training_runs.train_all("problem_2b", runs, device, sequences, resume, until)


def matched_hidden(model: str, other: str, hidden: int) -> int:
    """Return the fewest hidden units with which a model has as many parameters as another.

    Args:
        model:  see :class:`lrscan.train.Settings`
        other:  likewise
        hidden: units of a layer of the other model
    """

    def parameters(name: str, units: int) -> int:
        net = Classifier(Settings(model=name, hidden=units), torch.device("cpu"))
        return sum(one.numel() for one in net.parameters())

    wanted = parameters(other, hidden)
    return bisect_left(range(1, 4 * hidden), wanted, key=lambda n: parameters(model, n)) + 1


def _nearest(found: pandas.DataFrame, model: str, steps: int, start: int) -> dict[str, Any]:
    """Return the best settings of a model at the searched length that is nearest by ratio."""
    rows = found[(found["model"] == model) & (found["start_steps"].eq(0) == (start == 0))]
    if rows.empty:
        way = "with a curriculum" if start else "without a curriculum"
        raise ValueError(
            f"the search has no runs of {model!r} {way}; run: lrscan bench problem_2b_search"
        )
    distance = np.log(rows["T"].astype(float) / steps).abs()
    # Python's own numbers: those of NumPy are not read back from a checkpoint.
    return rows.loc[[distance.idxmin()], list(SEARCHED)].to_dict("records")[0]


def convergence(records: Records, criterion: str = "paper") -> pandas.DataFrame:
    """Return iterations, time and their spread for every model, length and start (Table 3).

    Means and deviations are over the runs that learned. The medians are over all runs: a run that
    did not learn counts as later than all that did, and as no earlier than the time it gave up.

    Args:
        criterion: "paper": five minibatches in a row without a mistake; "strict": 99% of 256
                   fresh sequences

    Returns:
        Columns: model, distractors, T, start_steps, B, C, runs, learned, iterations,
        iterations_std, seconds, seconds_std, median_seconds, at_least (True if the median is only
        a lower bound), ms_per_iteration (over the runs that learned; over all if none did),
        most_iterations (after which runs gave up), held_out (the worst).
    """
    rows = []
    groups = ["model", *TASK, "B", "C"]
    for values, runs in outcomes(records).groupby(groups):
        runs = runs.assign(at=runs[f"{criterion}_at"], to=runs[f"{criterion}_seconds"])
        good = runs[runs["at"].notna()]
        iterations, seconds = ("at", "to") if len(good) else ("iterations", "seconds")
        timed = good if len(good) else runs
        # The lower of the two middle runs if their number is even.
        middle = runs.sort_values(["to", "seconds"], na_position="last").iloc[(len(runs) - 1) // 2]
        at_least = pandas.isna(middle["to"])
        rows.append(
            {
                **dict(zip(groups, values, strict=True)),
                "runs": len(runs),
                "learned": len(good),
                "iterations": good["at"].mean(),
                "iterations_std": good["at"].std(),
                "seconds": good["to"].mean(),
                "seconds_std": good["to"].std(),
                "median_seconds": middle["seconds" if at_least else "to"],
                "at_least": at_least,
                "ms_per_iteration": 1e3 * timed[seconds].sum() / timed[iterations].sum(),
                "most_iterations": runs["iterations"].max(),
                "held_out": runs["held_out"].min(),
            }
        )
    return pandas.DataFrame(rows).sort_values([*TASK, "model"], ignore_index=True)


def sooner(records: Records, criterion: str = "paper") -> pandas.DataFrame:
    """Return how much sooner the GILR-LSTM learned than each LSTM at the same length and start.

    There are two answers. The first is over the runs that learned: the ratio of their mean times,
    which is the ratio of their mean iterations times the ratio of the times per iteration. The
    second is over all runs: the ratio of their medians, and the share of pairs of runs, one of each
    model, in which the GILR-LSTM learned sooner.

    Args:
        records:   of :func:`measure`
        criterion: as for :func:`convergence`

    Returns:
        Columns: those of :func:`convergence` for the GILR-LSTM, and with the suffix ``_of_lstm``
        for the LSTM; the ratios LSTM over GILR-LSTM, which are by_iterations,
        by_time_per_iteration, by_means (their product; missing if one of the two never learned),
        by_medians (0 if the GILR-LSTM's median run did not learn; a lower bound if
        ``at_least_of_lstm``); and pairs, a share.
    """
    table = convergence(records, criterion)
    ours, rival = (table[table["model"] == name] for name in RIVALS)
    both = ours.merge(rival, on=list(TASK), suffixes=("", "_of_lstm"))
    for name, column in {
        "by_iterations": "iterations",
        "by_time_per_iteration": "ms_per_iteration",
        "by_means": "seconds",
        "by_medians": "median_seconds",
    }.items():
        both[name] = both[f"{column}_of_lstm"] / both[column]
    both["by_medians"] = both["by_medians"].mask(both["at_least"], 0.0)
    times = outcomes(records)
    times["to"] = times[f"{criterion}_seconds"].fillna(np.inf)
    of = times.groupby(["model", *TASK, "C"])["to"]

    def share(row: pandas.Series) -> float:
        """Return the share of pairs in which the GILR-LSTM was sooner; neither counts as half."""
        task = tuple(row[list(TASK)])
        mine, other = (
            of.get_group((name, *task, units)).to_numpy()
            for name, units in zip(RIVALS, (row["C"], row["C_of_lstm"]), strict=True)
        )
        return float(np.mean([(a < b) + 0.5 * (a == b) for a in mine for b in other]))

    both["pairs"] = both.apply(share, axis=1) if len(both) else []
    return both


def plot(records: Records) -> Figure:
    """Draw the learning curves, a panel for each task."""
    return learning_curves(records, training_runs.curves(records))


def verdict(records: Records) -> Finding:
    """Return how much sooner the GILR-LSTM learned at every length, with equal width.

    The criterion is the paper's. The verdict takes runs without a curriculum, as the paper's were,
    at the paper's lengths, and compares the ratio of medians with the paper's. It is undecided if
    neither model was sooner in nine of ten pairs of runs, or if a model has fewer than three runs.
    """
    theirs = paper.table("table3_convergence").pivot(
        index="sequence_length", columns="model", values="wall_hours"
    )
    factors = (theirs["cuDNN LSTM"] / theirs["GILR-LSTM"]).dropna()
    parts: list[str] = []
    verdicts: dict[int, str] = {}
    for row in sooner(records).query("C == C_of_lstm").to_dict("records"):
        parts.append(
            f"{span(row['T'], row['start_steps'], row['distractors'])}: "
            f"{_learned(row, '')} of the GILR-LSTM and {_learned(row, '_of_lstm')} of the LSTM "
            f"learned; the GILR-LSTM learned first in {row['pairs']:.0%} of pairs of runs, and was "
            f"{'at least ' if row['at_least_of_lstm'] else ''}{row['by_medians']:.1f} times as "
            "fast by the medians of all runs"
        )
        if not row["start_steps"] and row["distractors"] == "any" and row["T"] in factors:
            few = min(row["runs"], row["runs_of_lstm"]) < _FEWEST_RUNS
            found = _judge(row["by_medians"], row["pairs"], factors[row["T"]])
            verdicts[row["T"]] = UNDECIDED if few else found
    if not verdicts:
        return Finding("; ".join(parts), NOT_TRIED)
    for one in (NOT_REPRODUCED, UNDECIDED, WEAKER):
        if one in verdicts.values():
            return Finding("; ".join(parts), one)
    if missing := sorted(set(factors.index) - set(verdicts)):
        parts += [f"T = {steps:,} without a curriculum was not tried" for steps in missing]
        return Finding("; ".join(parts), PARTLY)
    return Finding("; ".join(parts), HOLDS if records.on_gpu else CPU_HOLDS)


def _learned(row: dict[Any, Any], of: str) -> str:
    return f"{row['learned' + of]} of {row['runs' + of]} runs"


def _judge(by_medians: float, pairs: float, theirs: float) -> str:
    """Return the verdict on one length, given the paper's ratio there."""
    if 1 - _SURE < pairs < _SURE:
        return UNDECIDED
    if pairs <= 1 - _SURE:
        return NOT_REPRODUCED
    return HOLDS if by_medians >= theirs else WEAKER


def headline(records: Records) -> str:
    """Return the ratio of the median times on the paper's task, at the shortest of its lengths."""
    shortest = paper.table("table3_convergence")["sequence_length"].min()
    table = sooner(records).query("C == C_of_lstm and start_steps == 0 and distractors == 'any'")
    table = table[table["T"] == shortest]
    if table.empty:
        return ""
    row = table.iloc[0]
    return "≥ " * bool(row["at_least_of_lstm"]) + times(row["by_medians"])


EXPERIMENT = Experiment(
    name="problem_2b",
    notebook="reproduce/05_problem_2b",
    measure=measure,
    parameters=(
        "device",
        "lengths",
        "grown_lengths",
        "seeds",
        "hidden",
        "batch",
        "iterations",
        "sequences",
        "matched",
        "apart_lengths",
    ),
    options=("names",),
    resumes=True,
    figures={
        "problem_2b_curves": Plot(
            plot,
            "Accuracy on minibatches over wall time for both models, mean and "
            "deviation over the seeds. There is a panel for each sequence length, "
            "without and with a curriculum.",
        ),
    },
    verdict=verdict,
    headline=headline,
)
