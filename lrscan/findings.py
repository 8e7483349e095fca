"""What the records say of each of the paper's claims, and the verdict that follows."""

from typing import TYPE_CHECKING, NamedTuple

from lrscan.records import Records

if TYPE_CHECKING:
    import pandas

HOLDS = "holds"
HOLDS_PLAIN = "holds against the plain loop only"
WEAKER = "the same direction, by less"
NOT_REPRODUCED = "not reproduced"
HOLDS_PRIOR = "holds with a prior on where to look"
HOLDS_CURRICULUM = "holds with a curriculum"
CPU_HOLDS = "holds on a CPU"
CPU_CANNOT_TELL = "a CPU cannot tell"
NOT_MEASURED = "not measured yet"
NOT_TRIED = "not tried at this length"
_SOONER = 6  # times: what the paper says at least


class Finding(NamedTuple):
    """What a record says of a claim.

    ours     in words and numbers
    verdict  one of the words above
    ratio    our number over the paper's, where both are of one kind
    """

    ours: str
    verdict: str
    ratio: float | None = None


def on_gpu(measured: Records) -> bool:
    """Whether records were measured on a GPU."""
    return measured.provenance["measurements"][-1]["device_type"] == "cuda"


def correctness(measured: Records) -> Finding:
    """The largest error over its bound."""
    table = measured.table.assign(share=measured.table["error"] / measured.table["bound"])
    worst = table.loc[table["share"].idxmax()]
    told = f"error at most {worst['share']:.3f} of what rounding allows, in {len(table)} checks"
    told += f"; the worst in {worst['dtype']}"
    return Finding(told, HOLDS if worst["share"] <= 1 else NOT_REPRODUCED)


def _of_speedups(ours: "pandas.DataFrame", gpu: bool, theirs: "pandas.DataFrame") -> Finding:
    """The best parallel speed-up up to the paper's longest length, beside the paper's best.

    On a GPU it is judged against both serial loops.
    """
    from lrscan.bench import PARALLEL

    longest = theirs["sequence_length"].max()  # still longer ones would only flatter
    ours = ours[ours["algorithm"].isin(PARALLEL) & (ours["T"] <= longest)]
    plain = ours[ours["baseline"] == "serial_paper"] if gpu else ours
    best = plain.loc[plain["speedup"].idxmax()]
    where = f"T = {best['T']:,}, " + (f"{best['model']}, " if "model" in best else "")
    told = f"{best['speedup']:.1f}x ({best['algorithm']}, {where}m = {best['C']})"
    if not gpu:
        return Finding(told, CPU_CANNOT_TELL)
    tuned = ours.loc[ours["baseline"] == "serial", "speedup"].max()
    told += f"; over the tuned serial kernel {tuned:.1f}x"
    ratio = float(best["speedup"] / theirs["speedup"].max())
    if best["speedup"] <= 1:
        return Finding(told, NOT_REPRODUCED, ratio)
    return Finding(told, HOLDS if tuned > 1 else HOLDS_PLAIN, ratio)


def kernel_speedup(measured: Records) -> Finding:
    """The best speed-up of Table 1."""
    from lrscan import bench, paper

    theirs = paper.table("table1_kernel_speedup")
    return _of_speedups(bench.speedups(measured), on_gpu(measured), theirs)


def training_speedup(measured: Records) -> Finding:
    """The best speed-up of Table 2."""
    from lrscan import bench, paper

    ours = bench.speedups(measured, ("model", "T", "B", "C"))
    return _of_speedups(ours, on_gpu(measured), paper.table("table2_rnn_speedup"))


def family() -> Finding:
    """Which models are linear surrogate RNNs."""
    from lrscan import nn

    members = (nn.SRU, nn.QRNN, nn.StronglyTypedRNN, nn.GILRLSTM)
    inside = [one.__name__ for one in members if issubclass(one, nn.LinearSurrogateRNN)]
    told = f"{', '.join(inside)}: each one surrogate and one cell of one class"
    return Finding(told, HOLDS if len(inside) == len(members) else NOT_REPRODUCED)


def lstm_throughput(measured: Records) -> Finding:
    """The ratio of the heat map at its smallest minibatch and longest sequence."""
    from lrscan import bench, paper

    ours = bench.throughputs(measured)
    ours = ours[(ours["model"] == "GILR-LSTM") & (ours["B"] == ours["B"].min())]
    longest = ours.loc[ours["T"].idxmax()]
    told = f"{longest['ratio']:.1f}x (b = {longest['B']}, T = {longest['T']:,}, n = {longest['C']})"
    faster = longest["ratio"] > 1
    if not on_gpu(measured):
        return Finding(told, CPU_HOLDS if faster else NOT_REPRODUCED)
    theirs = paper.heatmap()
    at = theirs.loc[theirs["T"].idxmax()]
    return Finding(
        told, HOLDS if faster else NOT_REPRODUCED, float(longest["ratio"] / at["ratio"])
    )


def convergence(measured: Records) -> Finding:
    """How much sooner, at every length that both models were trained on with equal width.

    The verdict is on runs without a curriculum, as the paper's were.
    """
    from lrscan import bench

    told, factors = [], []
    for row in bench.side_by_side(measured).query("C == C_of_lstm").to_dict("records"):
        told.append(
            f"{bench.span(row['T'], row['start_steps'])}: {row['learned']} of {row['runs']} runs "
            f"of the GILR-LSTM and {row['learned_of_lstm']} of {row['runs_of_lstm']} runs of the "
            "LSTM learned"
        )
        if not row["learned"]:
            factor = 0.0
        elif not row["learned_of_lstm"]:  # it is later than when it gave up
            factor = row["most_iterations_of_lstm"] * row["ms_per_iteration_of_lstm"] / 1e3
            factor /= row["seconds"]
            told[-1] += f", the GILR-LSTM at least {factor:.1f} times as soon"
        else:
            factor = row["seconds_of_lstm"] / row["seconds"]
            told[-1] += f", the GILR-LSTM {factor:.1f} times as soon"
            if row["learned_of_lstm"] < row["runs_of_lstm"]:
                told[-1] += " as the LSTM where that learned"
        if not row["start_steps"]:
            factors.append(factor)
    least = min(factors, default=0.0)
    if least <= 1:
        verdict = NOT_REPRODUCED
    elif least < _SOONER:
        verdict = WEAKER
    else:
        verdict = HOLDS if on_gpu(measured) else CPU_HOLDS
    return Finding("; ".join(told), verdict)


def longest(measured: Records) -> Finding:
    """The longest that was learned: from an initialisation that knows where to look, by a
    curriculum of growing lengths, and with neither.
    """
    from lrscan import bench, paper

    table = bench.outcomes(measured)
    table = table[table["model"] == "GILRLSTM"]
    theirs = paper.table("table3_convergence").dropna(subset=["iterations_thousands"])
    million = theirs.loc[theirs["sequence_length"].idxmax()]
    tried = (table["T"] >= million["sequence_length"]).any()
    told, verdict, ratio = [], NOT_REPRODUCED if tried else NOT_TRIED, None
    prior, grown = table["initialisation"] == "early", table["start_steps"] > 0
    for runs, holds in (
        (table[prior], HOLDS_PRIOR),
        (table[grown & ~prior], HOLDS_CURRICULUM),
        (table[~grown & ~prior], HOLDS),
    ):
        learned = runs[runs["strict_at"].notna()]
        if learned.empty:
            continue
        steps = learned["T"].max()
        mine = learned[learned["T"] == steps]
        way, iterations = mine["initialisation"].iloc[0], mine["strict_at"].mean()
        told.append(
            f"{way}: {bench.span(steps, mine['start_steps'].iloc[0])}, {len(mine)} of "
            f"{(runs['T'] == steps).sum()} runs learned, "
            f"{iterations:,.0f} iterations, {mine['seconds_to'].mean() / 60:.1f} min"
        )
        if steps >= million["sequence_length"] and 2 * len(mine) > (runs["T"] == steps).sum():
            verdict = holds
            if holds == HOLDS:  # a prior or short sequences first: iterations of another kind
                ratio = float(iterations / (1e3 * million["iterations_thousands"]))
    return Finding("; ".join(told) or f"none of {len(table)} runs learned", verdict, ratio)
