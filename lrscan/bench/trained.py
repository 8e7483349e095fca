"""What records of training say: how every run ended, Table 3, learning curves, how much sooner."""

from __future__ import annotations

import numpy as np
import pandas

from lrscan.records import Records

# What a search may vary; all else is the same for both models.
SEARCHED = ("initialisation", "rate")
SPAN = ("T", "start_steps")  # with and without a curriculum are two tasks


def span(steps: int, start: int) -> str:
    """How long the sequences of a run are: "T = 8,192", or "T = 8,192, doubled from 128"."""
    return f"T = {steps:,}" + (f", doubled from {start:,}" if start else "")


def outcomes(measured: Records) -> pandas.DataFrame:
    """How every run ended, a row a run.

    Returns:
        Columns: run, model, T, start_steps (of the curriculum; 0: none), B, C, distractors, the
        settings in SEARCHED, seed, status, iterations, seconds, paper_at and strict_at (iterations;
        missing: not met), seconds_to (until the strict criterion, without evaluations), held_out,
        low, high (accuracy on fresh sequences with its 95% interval), measured_at.
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
            **{key: ended[key] for key in ("paper_at", "strict_at")},
            "held_out": ended.get("held_out"), "low": low, "high": high,
            "measured_at": one["measured_at"],
        }  # fmt: skip
        at = ended["strict_at"]
        of_run = tables[name].set_index("iteration")["seconds"]
        row["seconds_to"] = None if at is None else of_run.get(at)
        rows.append(row)
    table = pandas.DataFrame(rows)
    numbers = ["paper_at", "strict_at", "seconds_to", "held_out", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table.sort_values([*SPAN, "model", *SEARCHED, "seed"], ignore_index=True)


def chosen(search: Records) -> pandas.DataFrame:
    """For every model, length and start the settings that met the strict criterion first.

    Where none did, those with the best accuracy on fresh sequences at the end.

    Returns:
        The rows of :func:`outcomes`, one for each model, T and start_steps.
    """
    table = outcomes(search)
    table["failed"] = table["strict_at"].isna()
    order = table.sort_values(
        ["failed", "strict_at", "held_out"], ascending=[True, True, False], kind="stable"
    )
    return order.groupby(["model", *SPAN], sort=True).head(1).sort_values([*SPAN, "model"])


def convergence(measured: Records) -> pandas.DataFrame:
    """Table 3: iterations, time and their spread, for every model, length and start.

    Runs that did not learn are counted, not averaged: they are censored at their last iteration.

    Returns:
        Columns: model, T, start_steps, B, C, runs, learned, iterations, iterations_std, seconds,
        seconds_std (of those that learned, to the strict criterion), ms_per_iteration (median of
        runs, of those that did not learn too), most_iterations (where runs gave up), held_out
        (worst).
    """
    rows = []
    parts = ["model", *SPAN, "B", "C"]
    for part, runs in outcomes(measured).groupby(parts):
        good = runs[runs["strict_at"].notna()]
        rows.append(
            {
                **dict(zip(parts, part, strict=True)),
                "runs": len(runs), "learned": len(good),
                "iterations": good["strict_at"].mean(),
                "iterations_std": good["strict_at"].std(),
                "seconds": good["seconds_to"].mean(), "seconds_std": good["seconds_to"].std(),
                "ms_per_iteration": 1e3 * (runs["seconds"] / runs["iterations"]).median(),
                "most_iterations": runs["iterations"].max(),
                "held_out": runs["held_out"].min(),
            }
        )  # fmt: skip
    return pandas.DataFrame(rows).sort_values([*SPAN, "model"], ignore_index=True)


def curves(measured: Records, smoothing: int, points: int = 200) -> pandas.DataFrame:
    """The learning curves: moving average of minibatch accuracy over wall time, over all seeds.

    A run that has ended keeps its last value, so that the mean is over the same runs throughout.

    Args:
        smoothing: iterations in the moving average; the paper has 20, 5 and 20
        points:    of time, evenly spread from 0 to the end of the longest run

    Returns:
        Columns: model, T, start_steps, C, seconds, mean, deviation (over runs), runs, learned (how
        many of them).
    """
    tables, parts = [], ["model", *SPAN, "C"]
    every = dict(list(measured.table.groupby("run")))
    for part, ended in outcomes(measured).groupby(parts, sort=False):
        runs = [every[name] for name in ended["run"]]
        grid = np.linspace(0, max(run["seconds"].max() for run in runs), points)
        smooth = [run["accuracy"].rolling(smoothing, min_periods=1).mean() for run in runs]
        values = [
            np.interp(grid, run["seconds"], line) for run, line in zip(runs, smooth, strict=True)
        ]
        tables.append(
            pandas.DataFrame(
                {
                    **dict(zip(parts, part, strict=True)), "seconds": grid,
                    "mean": np.mean(values, axis=0), "deviation": np.std(values, axis=0),
                    "runs": len(runs), "learned": ended["strict_at"].notna().sum(),
                }
            )  # fmt: skip
        )
    return pandas.concat(tables, ignore_index=True)


def side_by_side(measured: Records) -> pandas.DataFrame:
    """:func:`convergence` of the GILR-LSTM, a row for each LSTM that it is held against.

    Returns:
        Its columns, and those of an LSTM at the same length and start with ``_of_lstm``.
    """
    table = convergence(measured)
    ours, rival = (table[table["model"] == name] for name in ("GILRLSTM", "LSTM"))
    return ours.merge(rival, on=list(SPAN), suffixes=("", "_of_lstm"))


def sooner(measured: Records) -> pandas.DataFrame:
    """How much sooner the GILR-LSTM learned than the LSTM, split into its two factors.

    Returns:
        Columns: T, start_steps, C, C_of_lstm, iterations (of the LSTM over those of the
        GILR-LSTM), time_per_iteration (likewise), sooner (their product as measured, of the
        seconds); the first and the last are missing where one of the two did not learn.
    """
    table = side_by_side(measured)
    factors = {
        "iterations": "iterations", "time_per_iteration": "ms_per_iteration", "sooner": "seconds"
    }  # fmt: skip
    ratios = {name: table[f"{column}_of_lstm"] / table[column] for name, column in factors.items()}
    return table[[*SPAN, "C", "C_of_lstm"]].assign(**ratios)
