"""What records of training say: how every run ended, Table 3, learning curves, how much sooner."""

from __future__ import annotations

import numpy as np
import pandas

from lrscan.evidence.records import Records

# What a search may vary; all else is the same for both models.
SEARCHED = ("initialisation", "rate")
TASK = ("distractors", "T", "start_steps")  # with and without a curriculum are two tasks
SMOOTHING = {1024: 20, 8192: 5, 1_048_576: 20}  # iterations, by T: the paper's learning curves
CRITERIA = ("paper", "strict")  # five minibatches in a row; 99% of 256 fresh sequences


def span(steps: int, start: int, distractors: str = "any") -> str:
    """The task of a run: "T = 8,192", or "T = 8,192, doubled from 128", or "..., apart"."""
    told = f"T = {steps:,}" + (f", doubled from {start:,}" if start else "")
    return told if distractors == "any" else f"{told}, distractors {distractors}"


def outcomes(measured: Records) -> pandas.DataFrame:
    """How every run ended, a row a run.

    Returns:
        Columns: run, model, T, start_steps (of the curriculum; 0: none), B, C, distractors, the
        settings in SEARCHED, seed, status, iterations, seconds, paper_at and strict_at (iterations
        to the two criteria; missing: not met), paper_seconds and strict_seconds (until then,
        without evaluations), held_out, low, high (accuracy on fresh sequences with its 95%
        interval), measured_at.
    """
    rows = []
    tables = dict(list(measured.table.groupby("run")))
    for one in measured.provenance["measurements"]:
        settings, ended = one["parameters"], one["outcome"]
        name = ended["run"]
        low, high = ended.get("held_out_interval", (None, None))
        row = {
            "run": name, "model": settings["model"], "T": settings["steps"],
            "start_steps": settings.get("start_steps", 0),
            "B": settings["batch"], "C": settings["hidden"],
            "distractors": settings["distractors"], "seed": settings["seed"],
            **{key: settings[key] for key in SEARCHED},
            **{key: ended[key] for key in ("status", "iterations", "seconds")},
            "held_out": ended.get("held_out"), "low": low, "high": high,
            "measured_at": one["measured_at"],
        }  # fmt: skip
        seconds = tables[name].set_index("iteration")["seconds"]
        for criterion in CRITERIA:
            at = row[f"{criterion}_at"] = ended[f"{criterion}_at"]
            row[f"{criterion}_seconds"] = None if at is None else seconds.get(at)
        rows.append(row)
    table = pandas.DataFrame(rows)
    numbers = [f"{criterion}_{what}" for criterion in CRITERIA for what in ("at", "seconds")]
    numbers += ["held_out", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table.sort_values([*TASK, "model", *SEARCHED, "seed"], ignore_index=True)


def ranked(table: pandas.DataFrame) -> pandas.DataFrame:
    """The settings of a search, the best first, for every model and task.

    Those with the most seeds come first: what ran once is not compared with what ran three times.
    Then the order is by how many seeds met the strict criterion, the median of the iterations to
    it, and the accuracy on fresh sequences at the end.

    Args:
        table: :func:`outcomes` of the search

    Returns:
        Columns: model, distractors, T, start_steps, initialisation, rate, seeds, learned (how many
        of them), iterations (their median; infinite: half or more did not learn), held_out (mean).
    """
    table = table.assign(iterations=table["strict_at"].fillna(np.inf))
    settings = table.groupby(["model", *TASK, *SEARCHED], sort=False).agg(
        seeds=("seed", "size"), learned=("strict_at", "count"),
        iterations=("iterations", "median"), held_out=("held_out", "mean"),
    )  # fmt: skip
    order = settings.reset_index().sort_values(
        ["seeds", "learned", "iterations", "held_out"], ascending=[False, False, True, False],
        kind="stable",
    )  # fmt: skip
    return order.sort_values([*TASK, "model"], kind="stable", ignore_index=True)


def chosen(search: Records) -> pandas.DataFrame:
    """The best settings of a search, as :func:`ranked` has them: a row a model and task."""
    return ranked(outcomes(search)).groupby(["model", *TASK], sort=False).head(1)


def convergence(measured: Records, criterion: str = "paper") -> pandas.DataFrame:
    """Table 3: iterations, time and their spread, for every model, length and start.

    Means and deviations are of the runs that learned. Runs that did not are counted, and are in
    the median: each is later than all that learned, and no sooner than when it gave up.

    Args:
        criterion: "paper": five minibatches in a row without a mistake; "strict": 99% of 256
                   fresh sequences

    Returns:
        Columns: model, distractors, T, start_steps, B, C, runs, learned, iterations,
        iterations_std, seconds, seconds_std, median_seconds, at_least (whether the median is only
        known to be no less), ms_per_iteration (of the runs that learned; where none did, of all),
        most_iterations (where runs gave up), held_out (worst).
    """
    rows = []
    parts = ["model", *TASK, "B", "C"]
    for part, runs in outcomes(measured).groupby(parts):
        runs = runs.assign(at=runs[f"{criterion}_at"], to=runs[f"{criterion}_seconds"])
        good = runs[runs["at"].notna()]
        iterations, seconds = ("at", "to") if len(good) else ("iterations", "seconds")
        timed = good if len(good) else runs
        # The lower of the two middle ones where their number is even.
        middle = runs.sort_values(["to", "seconds"], na_position="last").iloc[(len(runs) - 1) // 2]
        at_least = pandas.isna(middle["to"])
        rows.append(
            {
                **dict(zip(parts, part, strict=True)),
                "runs": len(runs), "learned": len(good),
                "iterations": good["at"].mean(), "iterations_std": good["at"].std(),
                "seconds": good["to"].mean(), "seconds_std": good["to"].std(),
                "median_seconds": middle["seconds" if at_least else "to"], "at_least": at_least,
                "ms_per_iteration": 1e3 * timed[seconds].sum() / timed[iterations].sum(),
                "most_iterations": runs["iterations"].max(),
                "held_out": runs["held_out"].min(),
            }
        )  # fmt: skip
    return pandas.DataFrame(rows).sort_values([*TASK, "model"], ignore_index=True)


def curves(measured: Records, points: int = 200) -> pandas.DataFrame:
    """The learning curves: moving average of minibatch accuracy over wall time, over all seeds.

    A run that has ended keeps its last value, so that the mean is over the same runs throughout.

    Args:
        points: of time, in equal ratios from the first iteration to the end of the longest run

    Returns:
        Columns: model, distractors, T, start_steps, C, seconds, mean, deviation (over runs), runs,
        learned (how many of them, by the strict criterion), smoothing (iterations in the moving
        average, as the paper has it).
    """
    tables, parts = [], ["model", *TASK, "C"]
    every = dict(list(measured.table.groupby("run")))
    for part, ended in outcomes(measured).groupby(parts, sort=False):
        of_part = dict(zip(parts, part, strict=True))
        smoothing = SMOOTHING.get(of_part["T"], 20)
        runs = [every[name] for name in ended["run"]]
        first = min(run["seconds"].iloc[0] for run in runs)
        last = max(run["seconds"].iloc[-1] for run in runs)
        grid = np.geomspace(first, last, points)
        smooth = [run["accuracy"].rolling(smoothing, min_periods=1).mean() for run in runs]
        values = [
            np.interp(grid, run["seconds"], line) for run, line in zip(runs, smooth, strict=True)
        ]
        tables.append(
            pandas.DataFrame(
                {
                    **of_part, "seconds": grid, "mean": np.mean(values, axis=0),
                    "deviation": np.std(values, axis=0, ddof=min(1, len(runs) - 1)),
                    "runs": len(runs), "learned": ended["strict_at"].notna().sum(),
                    "smoothing": smoothing,
                }
            )  # fmt: skip
        )
    return pandas.concat(tables, ignore_index=True)


def sooner(measured: Records, criterion: str = "paper") -> pandas.DataFrame:
    """How much sooner the GILR-LSTM learned than each LSTM at the same length and start.

    Two answers. Of the runs that learned: the ratio of their mean times is that of their mean
    iterations times that of the time an iteration takes. Of all runs: the ratio of their medians,
    and in how many pairs of runs, one of each model, the GILR-LSTM was the sooner.

    Returns:
        Columns: those of :func:`convergence` for the GILR-LSTM, and for the LSTM with
        ``_of_lstm``; then the ratios, LSTM over GILR-LSTM: by_iterations, by_time_per_iteration,
        by_means (their product; missing where one of the two never learned), by_medians (0 if the
        GILR-LSTM's median run did not learn; a bound if ``at_least_of_lstm``), and pairs, a share.
    """
    table = convergence(measured, criterion)
    ours, rival = (table[table["model"] == name] for name in ("GILRLSTM", "LSTM"))
    both = ours.merge(rival, on=list(TASK), suffixes=("", "_of_lstm"))
    for name, column in {
        "by_iterations": "iterations", "by_time_per_iteration": "ms_per_iteration",
        "by_means": "seconds", "by_medians": "median_seconds",
    }.items():  # fmt: skip
        both[name] = both[f"{column}_of_lstm"] / both[column]
    both["by_medians"] = both["by_medians"].mask(both["at_least"], 0.0)
    times = outcomes(measured)
    times["to"] = times[f"{criterion}_seconds"].fillna(np.inf)
    of = times.groupby(["model", *TASK, "C"])["to"]

    def share(row: pandas.Series) -> float:
        """Of pairs in which the GILR-LSTM was the sooner; a half where neither learned."""
        task = tuple(row[list(TASK)])
        mine, other = (
            of.get_group((name, *task, units)).to_numpy()
            for name, units in (("GILRLSTM", row["C"]), ("LSTM", row["C_of_lstm"]))
        )
        return float(np.mean([(a < b) + 0.5 * (a == b) for a in mine for b in other]))

    both["pairs"] = both.apply(share, axis=1) if len(both) else []
    return both
