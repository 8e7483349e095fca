"""What the records say of each of the paper's claims, and the verdict that follows."""

from typing import Any, NamedTuple

from lrscan.evidence import paper
from lrscan.evidence.records import Records

HOLDS = "holds"
HOLDS_PLAIN = "holds against the plain loop only"
WEAKER = "the same direction, by less"
PARTLY = "holds where it was tried"
UNDECIDED = "undecided"
NOT_REPRODUCED = "not reproduced"
HOLDS_PRIOR = "holds with a prior on where to look"
HOLDS_CURRICULUM = "holds with a curriculum"
CPU_HOLDS = "holds on a CPU"
CPU_CANNOT_TELL = "a CPU cannot tell"
NOT_MEASURED = "not measured yet"
NOT_TRIED = "not tried at this length"
_SURE = 0.9  # of pairs of runs, one of each model, that must fall out alike
_FEWEST_RUNS = 3  # of each model: with fewer, pairs that fall out alike are no more than luck


class Finding(NamedTuple):
    """What a record says of a claim.

    ours     in words and numbers
    verdict  one of the words above
    ratio    our number over the paper's, where both are of one kind
    """

    ours: str
    verdict: str
    ratio: float | None = None


def correctness(measured: Records) -> Finding:
    """The largest error over its bound."""
    table = measured.table.assign(share=measured.table["error"] / measured.table["bound"])
    worst = table.loc[table["share"].idxmax()]
    told = f"error at most {worst['share']:.3f} of what rounding allows, in {len(table)} checks"
    told += f"; the worst in {worst['dtype']}"
    return Finding(told, HOLDS if worst["share"] <= 1 else NOT_REPRODUCED)


def kernel_speedup(measured: Records) -> Finding:
    """The best parallel speed-up at the length and number of features of Table 1's best cell."""
    theirs = paper.table("table1_kernel_speedup")
    best = theirs.loc[theirs["speedup"].idxmax()]
    wanted = {"T": int(best["sequence_length"]), "C": int(best["features"])}
    return _of_speedups(measured, ("T", "C"), [("", wanted, best["speedup"])])


def training_speedup(measured: Records) -> Finding:
    """For every model of Table 2 the best parallel speed-up at the paper's longest length."""
    theirs = paper.table("table2_rnn_speedup")
    longest = theirs["sequence_length"].max()
    cells = theirs[theirs["sequence_length"] == longest].set_index("model")["speedup"]
    wanted = [(name, {"T": int(longest), "model": name}, factor) for name, factor in cells.items()]
    return _of_speedups(measured, ("T", "C", "model", "B"), wanted)


def _of_speedups(
    measured: Records, by: tuple[str, ...], cells: list[tuple[str, dict[str, Any], float]]
) -> Finding:
    """The best parallel speed-ups of cells, each given as (name, where it is, the paper's).

    The verdict is on a GPU's cells over the plain loop, each beside the paper's, and on those over
    the tuned serial kernel. The ratio is that of the cell that is furthest behind.
    """
    import pandas

    from lrscan import bench

    table = bench.speedups(measured, by)
    table = table[table["algorithm"].isin(bench.PARALLEL)]
    gpu, told, found = measured.on_gpu, [], []
    for name, where, theirs in cells:
        rows = table[(table[list(where)] == pandas.Series(where)).all(axis=1)]
        plain = rows[rows["baseline"] == ("serial_paper" if gpu else "serial")]
        if plain.empty:
            continue
        best = plain.loc[plain["speedup"].idxmax()]
        tuned = rows.loc[rows["baseline"] == "serial", "speedup"].max()
        found.append((best["speedup"], tuned, float(best["speedup"] / theirs)))
        width = f"{'n' if name else 'm'} = {best['C']}"
        told.append(f"{name} {best['speedup']:.2f}x ({best['algorithm']}, {width}".strip())
        told[-1] += f"; {tuned:.2f}x over the tuned serial kernel)" if gpu else ")"
    at = f"T = {cells[0][1]['T']:,}"
    if not found:
        return Finding(f"nothing at {at}", NOT_TRIED)
    text = f"at {at}: " + "; ".join(told)
    if not gpu:
        return Finding(text, CPU_CANNOT_TELL)
    over_plain, over_tuned, ratio = (min(column) for column in zip(*found, strict=True))
    if over_plain <= 1:
        return Finding(text, NOT_REPRODUCED, ratio)
    if ratio < 1:
        return Finding(text, WEAKER, ratio)
    return Finding(text, HOLDS if over_tuned > 1 else HOLDS_PLAIN, ratio)


def family() -> Finding:
    """Which models are linear surrogate RNNs."""
    from lrscan import nn

    members = (nn.SRU, nn.QRNN, nn.StronglyTypedRNN, nn.GILRLSTM)
    inside = [one.__name__ for one in members if issubclass(one, nn.LinearSurrogateRNN)]
    told = f"{', '.join(inside)}: each one surrogate and one cell of one class"
    told += "; tests/test_nn_equations.py holds each against its equations"
    return Finding(told, HOLDS if len(inside) == len(members) else NOT_REPRODUCED)


def lstm_throughput(measured: Records) -> Finding:
    """The ratio of the heat map at its smallest minibatch and longest sequence.

    It is held against the paper's number where that is of the same minibatch, length and width.
    """
    from lrscan import bench

    ours = bench.throughputs(measured)
    # In a partial record a minibatch may have no LSTM yet.
    ours = ours[(ours["model"] == "GILR-LSTM") & ours["ratio"].notna()]
    ours = ours[ours["B"] == ours["B"].min()]
    if ours.empty:
        return Finding("no minibatch has both models yet", NOT_TRIED)
    longest = ours.loc[ours["T"].idxmax()]
    told = f"{longest['ratio']:.1f}x (b = {longest['B']}, T = {longest['T']:,}, n = {longest['C']})"
    if longest["ratio"] <= 1:
        return Finding(told, NOT_REPRODUCED)
    if not measured.on_gpu:
        return Finding(told, CPU_HOLDS)
    theirs = paper.heatmap()
    at = theirs.loc[theirs["T"].idxmax()]
    if (longest["T"], longest["B"], longest["C"]) != (at["T"], at["B"], 256):
        return Finding(told, PARTLY)
    ratio = float(longest["ratio"] / at["ratio"])
    return Finding(told, HOLDS if ratio >= 1 else WEAKER, ratio)


def convergence(measured: Records) -> Finding:
    """How much sooner, at every length that both models were trained on with equal width.

    By the paper's criterion. The verdict is on runs without a curriculum, as the paper's were, at
    the paper's lengths: on the ratio of medians beside the paper's, unless one model was the sooner
    in fewer than nine of ten pairs of runs, or has fewer than three runs.
    """
    from lrscan import bench

    theirs = paper.table("table3_convergence").pivot(
        index="sequence_length", columns="model", values="wall_hours"
    )
    factors = (theirs["cuDNN LSTM"] / theirs["GILR-LSTM"]).dropna()
    told: list[str] = []
    verdicts: dict[int, str] = {}
    for row in bench.sooner(measured).query("C == C_of_lstm").to_dict("records"):
        told.append(
            f"{bench.span(row['T'], row['start_steps'], row['distractors'])}: "
            f"{_learned(row, '')} of the GILR-LSTM and {_learned(row, '_of_lstm')} of the LSTM "
            f"learned; the GILR-LSTM was sooner in {row['pairs']:.0%} of pairs of runs, and "
            f"{'at least ' if row['at_least_of_lstm'] else ''}{row['by_medians']:.1f} times as "
            "soon by the medians of all runs"
        )
        if not row["start_steps"] and row["distractors"] == "any" and row["T"] in factors:
            few = min(row["runs"], row["runs_of_lstm"]) < _FEWEST_RUNS
            found = _sooner(row["by_medians"], row["pairs"], factors[row["T"]])
            verdicts[row["T"]] = UNDECIDED if few else found
    if not verdicts:
        return Finding("; ".join(told), NOT_TRIED)
    for verdict in (NOT_REPRODUCED, UNDECIDED, WEAKER):
        if verdict in verdicts.values():
            return Finding("; ".join(told), verdict)
    if missing := sorted(set(factors.index) - set(verdicts)):
        told += [f"T = {steps:,} without a curriculum was not tried" for steps in missing]
        return Finding("; ".join(told), PARTLY)
    return Finding("; ".join(told), HOLDS if measured.on_gpu else CPU_HOLDS)


def _learned(row: dict[Any, Any], of: str) -> str:
    return f"{row['learned' + of]} of {row['runs' + of]} runs"


def _sooner(by_medians: float, pairs: float, theirs: float) -> str:
    if 1 - _SURE < pairs < _SURE:
        return UNDECIDED
    if pairs <= 1 - _SURE:
        return NOT_REPRODUCED
    return HOLDS if by_medians >= theirs else WEAKER


def longest(measured: Records) -> Finding:
    """The longest that was learned: from an initialisation that knows where to look, by a
    curriculum of growing lengths, and with neither. With it, the longer ones that were not.
    """
    from lrscan import bench

    every = bench.outcomes(measured)
    table = every[every["model"] == "GILRLSTM"]
    theirs = paper.table("table3_convergence").dropna(subset=["iterations_thousands"])
    million = theirs.loc[theirs["sequence_length"].idxmax()]
    far = million["sequence_length"]
    told, ratio = [], None
    verdict = NOT_REPRODUCED if (table["T"] >= far).any() else NOT_TRIED
    prior, grown = table["initialisation"] == "early", table["start_steps"] > 0
    for runs, holds in (
        (table[prior], HOLDS_PRIOR),
        (table[grown & ~prior], HOLDS_CURRICULUM),
        (table[~grown & ~prior], HOLDS),
    ):
        if runs.empty:
            continue
        learned = runs[runs["strict_at"].notna()]
        steps = learned["T"].max() if len(learned) else 0
        mine = learned[learned["T"] == steps]
        parts = [
            f"{bench.span(length, part['start_steps'].iloc[0])}, "
            f"{part['strict_at'].count()} of {len(part)} runs learned"
            for length, part in runs[runs["T"] >= steps].groupby("T")
        ]
        if len(mine):
            iterations, seconds = mine["strict_at"].mean(), mine["strict_seconds"].mean()
            took = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.2g} s"
            parts[0] += f", {iterations:,.0f} iterations, {took}"
        told.append(f"{runs['initialisation'].iloc[0]}: {'; '.join(parts)}")
        if steps >= far and 2 * len(mine) > (runs["T"] == steps).sum():
            verdict = holds
            if holds == HOLDS:  # a prior or short sequences first: iterations of another kind
                ratio = float(iterations / (1e3 * million["iterations_thousands"]))
    rival = every[(every["model"] == "LSTM") & (every["T"] >= far)]
    if rival.empty:
        told.append(f"an LSTM was not tried at T = {far:,}")
    else:
        told.append(
            f"{rival['strict_at'].count()} of {len(rival)} runs of an LSTM learned T = {far:,}"
        )
    return Finding("; ".join(told), verdict, ratio)
