"""Tables of training runs for notebooks: few columns, short names, one unit per column.

The functions that compute the numbers, and explain them, are in
:mod:`lrscan.experiments.training_runs`, :mod:`lrscan.experiments.problem_2b_search` and
:mod:`lrscan.experiments.problem_2b`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas

from lrscan.evidence.records import Records
from lrscan.experiments import problem_2b, problem_2b_search
from lrscan.experiments.training_runs import outcomes

_NAMES = {
    "initialisation": "init",
    "paper_at": "paper",
    "strict_at": "strict",
    "strict_seconds": "seconds",
    "held_out": "held out",
    "median_seconds": "median s",
    "ms_per_iteration": "ms/iter.",
    "C_of_lstm": "C (LSTM)",
    "by_iterations": "iterations",
    "by_time_per_iteration": "ms/iter.",
    "by_means": "means",
    "by_medians": "medians",
}


def _named(
    table: pandas.DataFrame, keys: Iterable[str], columns: Iterable[str]
) -> pandas.DataFrame:
    """Return the columns under their short names, with the task and the keys as row labels.

    The task of runs on 1,024 steps is "1,024", with a curriculum "1,024 from 128".
    """
    tasks = zip(table["T"], table["start_steps"], table["distractors"], strict=True)
    table = table.assign(
        task=[
            f"{steps:,}" + f" from {start:,}" * bool(start) + " apart" * (kind == "apart")
            for steps, start, kind in tasks
        ]
    ).replace({"model": {"GILRLSTM": "GILR-LSTM"}})
    keys = ["task", *keys]
    table = table[[*keys, *columns]].rename(columns=_NAMES)
    return table.set_index([_NAMES.get(key, key) for key in keys])


def finalists(search: Records) -> pandas.DataFrame:
    """Return the settings of a search that ran with several seeds, the best of a task first."""
    table = problem_2b_search.ranked(outcomes(search)).query("seeds > 1")
    keys = ("model", "initialisation")
    return _named(table, keys, ("rate", "seeds", "learned", "iterations", "held_out"))


def table_3(records: Records, criterion: str = "paper") -> pandas.DataFrame:
    """Return :func:`lrscan.experiments.problem_2b.convergence` with deviations next to the means.

    A median that is only known to be no less than a number is written as "≥" and that number.
    """
    table = problem_2b.convergence(records, criterion)
    learned = zip(table["learned"], table["runs"], strict=True)
    table["learned"] = [f"{part} of {whole}" for part, whole in learned]
    for name, digits in {"iterations": 0, "seconds": 1}.items():
        pairs = zip(table[name], table[f"{name}_std"], strict=True)
        table[name] = [_plus_minus(mean, deviation, digits) for mean, deviation in pairs]
    medians = zip(table["at_least"], table["median_seconds"], strict=True)
    table["median_seconds"] = [f"{'≥ ' * bool(bound)}{seconds:.1f}" for bound, seconds in medians]
    table["ms_per_iteration"] = table["ms_per_iteration"].round(1)
    keys = ("model", "C")
    columns = ("learned", "iterations", "seconds", "median_seconds", "ms_per_iteration", "held_out")
    return _named(table, keys, columns)


def sooner(records: Records, criterion: str = "paper") -> pandas.DataFrame:
    """Return the ratios of :func:`lrscan.experiments.problem_2b.sooner`, LSTM over GILR-LSTM."""
    table = problem_2b.sooner(records, criterion)
    medians = zip(table["at_least_of_lstm"], table["by_medians"], strict=True)
    table["by_medians"] = [f"{'≥ ' * bool(bound)}{ratio:.2f}" for bound, ratio in medians]
    keys = ("C", "C_of_lstm")
    columns = ("by_iterations", "by_time_per_iteration", "by_means", "by_medians", "pairs")
    return _named(table, keys, columns)


def runs(records: Records) -> pandas.DataFrame:
    """Return how every run ended: iterations and seconds to the criteria, accuracy afterwards.

    Settings that all runs share are left out. A run that gave up did not meet the strict criterion.
    """
    table = outcomes(records)
    keys = [key for key in ("model", "initialisation", "B", "C") if table[key].nunique() > 1]
    for criterion in ("paper_at", "strict_at"):
        table[criterion] = table[criterion].astype("Int64")
    table["strict_seconds"] = table["strict_seconds"].round(2)
    columns = ("iterations", "paper_at", "strict_at", "strict_seconds", "held_out", "low", "high")
    return _named(table, [*keys, "seed"], columns)


def _plus_minus(mean: float, deviation: float, digits: int) -> str:
    """A mean and its deviation; empty where there is no mean."""
    if math.isnan(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ± {deviation:.{digits}f}")
