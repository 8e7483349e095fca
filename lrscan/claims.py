"""The paper's claims, each with what the records say about it.

Source of the claims: E. Martin and C. Cundy, Parallelizing Linear Recurrent Neural Nets Over
Sequence Length (ICLR 2018, arXiv:1709.04057). Every number of ours comes from a record.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lrscan import records, workspace
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
A_GPU = "a GPU"
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


@dataclass(frozen=True)
class Claim:
    """A claim, and how a record is read for it.

    id          C1 to C7
    statement   what the paper says, in our words
    source      where it says so
    number      its number, with the device it was measured on
    differs     what differs between their measurement and ours
    notebook    where it is measured or shown
    figure      the figure to look at, of the device's folder; empty if there is none
    experiment  the records that bear on it; empty if it needs none
    find        from such records, or from none, to what they say
    of_a_gpu    whether it is about a GPU, so that a row says when none was measured
    """

    id: str
    statement: str
    source: str
    number: str
    differs: str
    notebook: str
    figure: str
    experiment: str
    find: Callable[..., Finding]
    of_a_gpu: bool = True


def _gpu(measured: Records) -> bool:
    return measured.provenance["measurements"][-1]["device_type"] == "cuda"


def _correctness(measured: Records) -> Finding:
    share = (measured.table["error"] / measured.table["bound"]).max()
    told = f"error at most {share:.2f} of what rounding allows, in {len(measured.table)} checks"
    return Finding(told, HOLDS if share <= 1 else NOT_REPRODUCED)


def _of_speedups(ours: "pandas.DataFrame", on_gpu: bool, theirs: "pandas.DataFrame") -> Finding:
    """The best parallel speed-up up to the paper's longest length, beside the paper's best.

    On a GPU it is judged against both serial loops.
    """
    from lrscan.bench import PARALLEL

    longest = theirs["sequence_length"].max()  # still longer ones would only flatter
    ours = ours[ours["algorithm"].isin(PARALLEL) & (ours["T"] <= longest)]
    plain = ours[ours["baseline"] == "serial_paper"] if on_gpu else ours
    best = plain.loc[plain["speedup"].idxmax()]
    where = f"T = {best['T']:,}, " + (f"{best['model']}, " if "model" in best else "")
    told = f"{best['speedup']:.1f}x ({best['algorithm']}, {where}m = {best['C']})"
    if not on_gpu:
        return Finding(told, CPU_CANNOT_TELL)
    tuned = ours.loc[ours["baseline"] == "serial", "speedup"].max()
    told += f"; over the tuned serial kernel {tuned:.1f}x"
    ratio = float(best["speedup"] / theirs["speedup"].max())
    if best["speedup"] <= 1:
        return Finding(told, NOT_REPRODUCED, ratio)
    return Finding(told, HOLDS if tuned > 1 else HOLDS_PLAIN, ratio)


def _kernel_speedup(measured: Records) -> Finding:
    from lrscan import bench, paper

    theirs = paper.table("table1_kernel_speedup")
    return _of_speedups(bench.speedups(measured), _gpu(measured), theirs)


def _training_speedup(measured: Records) -> Finding:
    from lrscan import bench, paper

    ours = bench.speedups(measured, ("model", "T", "B", "C"))
    return _of_speedups(ours, _gpu(measured), paper.table("table2_rnn_speedup"))


def _family() -> Finding:
    from lrscan import nn

    members = (nn.SRU, nn.QRNN, nn.StronglyTypedRNN, nn.GILRLSTM)
    inside = [one.__name__ for one in members if issubclass(one, nn.LinearSurrogateRNN)]
    told = f"{', '.join(inside)}: each one surrogate and one cell of one class"
    return Finding(told, HOLDS if len(inside) == len(members) else NOT_REPRODUCED)


def _lstm_throughput(measured: Records) -> Finding:
    from lrscan import bench, paper

    ours = bench.throughputs(measured)
    ours = ours[(ours["model"] == "GILR-LSTM") & (ours["B"] == ours["B"].min())]
    longest = ours.loc[ours["T"].idxmax()]
    told = f"{longest['ratio']:.1f}x (b = {longest['B']}, T = {longest['T']:,}, n = {longest['C']})"
    faster = longest["ratio"] > 1
    if not _gpu(measured):
        return Finding(told, CPU_HOLDS if faster else NOT_REPRODUCED)
    theirs = paper.heatmap()
    at = theirs.loc[theirs["T"].idxmax()]
    return Finding(
        told, HOLDS if faster else NOT_REPRODUCED, float(longest["ratio"] / at["ratio"])
    )


def _convergence(measured: Records) -> Finding:
    """How much sooner, at every length that both models were trained on with equal width.

    The verdict is on runs without a curriculum, as the paper's were.
    """
    from lrscan import bench

    table = bench.convergence(measured)
    ours, rival = (table[table["model"] == name] for name in ("GILRLSTM", "LSTM"))
    told, factors = [], []
    both = ours.merge(rival, on=["T", "start_steps", "C"], suffixes=("", "_of_lstm"))
    for row in both.to_dict("records"):
        told.append(
            f"{bench.span(row['T'], row['start_steps'])}: {row['learned']} of {row['runs']} runs "
            f"of the GILR-LSTM and {row['learned_of_lstm']} of {row['runs_of_lstm']} runs of the "
            "LSTM learned"
        )
        if not row["learned"]:
            factor = 0.0
        elif not row["learned_of_lstm"]:
            factor = math.inf
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
        verdict = HOLDS if _gpu(measured) else CPU_HOLDS
    return Finding("; ".join(told), verdict)


def _longest(measured: Records) -> Finding:
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
        if steps >= million["sequence_length"]:
            verdict = holds
            if holds == HOLDS:  # a prior or short sequences first: iterations of another kind
                ratio = float(iterations / (1e3 * million["iterations_thousands"]))
    return Finding("; ".join(told) or f"none of {len(table)} runs learned", verdict, ratio)


CLAIMS = (
    Claim(
        "C1", "The recurrence is a scan, and its gradients are one more scan, run backwards",
        "section 2", "equal to the serial loop up to rounding",
        "held against a loop in double precision, with a bound from rounding",
        "reproduce/01_correctness", "correctness", "correctness", _correctness, of_a_gpu=False,
    ),
    Claim(
        "C2", "On long sequences the parallel kernel beats the serial one",
        "Table 1", "up to 41.8x (T = 65,536, m = 32, K80)",
        "the device; on a GPU the baseline is a plain loop as the paper's, and a tuned one",
        "reproduce/02_kernel_speedup", "kernel_speedup", "kernel_speedup", _kernel_speedup,
    ),
    Claim(
        "C3", "The parallel kernel alone speeds up the training of SRU, QRNN and GILR-LSTM",
        "Table 2", "up to 9.21x (SRU, T = 65,536, K80)",
        "the device; forward and backward are timed, and both recurrences of the GILR-LSTM switch",
        "reproduce/03_training_speedup", "training_speedup", "training_speedup",
        _training_speedup,
    ),
    Claim(
        "C4", "SRU, QRNN and strongly typed RNNs are one family; the GILR-LSTM is a new member",
        "section 3", "a construction", "it is a class here, and the models are its instances",
        "learn/09_what_else_a_scan_does", "", "", _family, of_a_gpu=False,
    ),
    Claim(
        "C5", "At small minibatch a GILR-LSTM trains faster than the cuDNN LSTM",
        "heat map", "35x (b = 1, T = 131,072, K80)",
        "the device and, on a CPU, the rival: torch's own LSTM; full float32 on both sides",
        "reproduce/04_lstm_throughput", "lstm_throughput", "lstm_throughput", _lstm_throughput,
    ),
    Claim(
        "C6", "A GILR-LSTM converges 6 to 10 times sooner than the cuDNN LSTM on problem 2b",
        "Table 3", "0.031 h against 0.28 h (T = 1,024, K80)",
        "the device, the initialisation and a stricter criterion: 99% of 256 fresh sequences",
        "reproduce/05_problem_2b", "problem_2b_curves", "problem_2b", _convergence,
    ),
    Claim(
        "C7", "A GILR-LSTM learns a dependence one million steps long",
        "Table 3", "14,000 iterations, 9.7 h (T = 1,048,576, K80)",
        "the device, initialisation, a curriculum, and the criterion: 99% of 256 fresh sequences",
        "reproduce/06_one_million_steps", "long_memory", "long_memory", _longest,
    ),
)  # fmt: skip


def table(directory: Path | None = None) -> "pandas.DataFrame":
    """Every claim beside what was measured, a row a claim and device.

    Arguments
    ---------
    directory   the folder of the records; default: the committed ones

    Returns
    -------
    pandas.DataFrame
        Columns: id, claim, source, paper, device, ours, ratio (ours over the paper's; missing
        where the two are not of one kind), differs, verdict, notebook, figure. A claim about GPUs
        of which there are no such records has a row that says so.
    """
    import pandas

    directory = workspace.committed_records() if directory is None else Path(directory)
    return pandas.DataFrame([row for claim in CLAIMS for row in _rows(claim, directory)])


def _rows(claim: Claim, directory: Path) -> Iterator[dict[str, Any]]:
    about = {
        "id": claim.id, "claim": claim.statement, "source": claim.source, "paper": claim.number,
    }  # fmt: skip

    def row(device: str, finding: Finding, figure: str = "") -> dict[str, Any]:
        return about | {
            "device": device, "ours": finding.ours, "ratio": finding.ratio,
            "differs": claim.differs, "verdict": finding.verdict, "notebook": claim.notebook,
            "figure": figure,
        }  # fmt: skip

    if not claim.experiment:
        yield row("", claim.find())
        return
    seen_gpu = False
    paths = sorted(directory.glob(f"*/{claim.experiment}.csv"))
    for path in paths:
        measured = records.read(path.stem, path.parent.name, directory=directory)
        seen_gpu |= _gpu(measured)
        figure = f"{path.parent.name}/{claim.figure}.png"
        yield row(measured.device_label, claim.find(measured), figure)
    if claim.of_a_gpu and not seen_gpu:
        yield row(A_GPU, Finding("", NOT_MEASURED))
    elif not paths:
        yield row("", Finding("", NOT_MEASURED))
