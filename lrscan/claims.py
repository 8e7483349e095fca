"""The paper's claims, each with what the records say about it.

Source of the claims: E. Martin and C. Cundy, Parallelizing Linear Recurrent Neural Nets Over
Sequence Length (ICLR 2018, arXiv:1709.04057). Every number of ours comes from a record.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscan import findings
from lrscan.evidence import records, workspace
from lrscan.findings import NOT_MEASURED, Finding

if TYPE_CHECKING:
    import pandas

A_GPU = "a GPU"


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


CLAIMS = (
    Claim(
        "C1", "The recurrence is a scan, and its gradients are one more scan, run backwards",
        "section 2", "equal to the serial loop up to rounding",
        "held against a loop in double precision, with a bound from rounding",
        "reproduce/01_correctness", "correctness", "correctness", findings.correctness,
        of_a_gpu=False,
    ),
    Claim(
        "C2", "On long sequences the parallel kernel beats the serial one",
        "Table 1", "up to 41.8x (T = 65,536, m = 32, K80)",
        "the device; on a GPU the baseline is a plain loop as the paper's, beside a tuned one",
        "reproduce/02_kernel_speedup", "kernel_speedup", "kernel_speedup", findings.kernel_speedup,
    ),
    Claim(
        "C3", "The parallel kernel alone speeds up the training of SRU, QRNN and GILR-LSTM",
        "Table 2", "up to 9.21x (SRU, T = 65,536, K80)",
        "the device; forward and backward are timed, and both recurrences of the GILR-LSTM switch",
        "reproduce/03_training_speedup", "training_speedup", "training_speedup",
        findings.training_speedup,
    ),
    Claim(
        "C4", "SRU, QRNN and strongly typed RNNs are one family; the GILR-LSTM is a new member",
        "section 3", "a construction", "it is a class here, and the models are its instances",
        "learn/09_what_else_a_scan_does", "", "", findings.family, of_a_gpu=False,
    ),
    Claim(
        "C5", "At small minibatch a GILR-LSTM trains faster than the cuDNN LSTM",
        "heat map", "35x (b = 1, T = 131,072, K80)",
        "the device and, on a CPU, the rival: torch's own LSTM; full float32 on both sides",
        "reproduce/04_lstm_throughput", "lstm_throughput", "lstm_throughput",
        findings.lstm_throughput,
    ),
    Claim(
        "C6", "A GILR-LSTM converges 6 to 10 times sooner than the cuDNN LSTM on problem 2b",
        "Table 3", "9.0 times at T = 1,024, 5.8 times at T = 8,192 (K80)",
        "the device and, on a CPU, the rival (torch's own LSTM) and the width (128, not 512); "
        "initialisation and learning rate, searched for both alike; the GILR-LSTM looks inputs "
        "up by index, the LSTM multiplies one-hot vectors; runs with a curriculum decide nothing",
        "reproduce/05_problem_2b", "problem_2b_curves", "problem_2b", findings.convergence,
    ),
    Claim(
        "C7", "A GILR-LSTM learns a dependence one million steps long, the cuDNN LSTM does not",
        "Table 3", "14,000 iterations, 9.7 h (T = 1,048,576, K80); the LSTM: not in several days",
        "the device, initialisation, a curriculum, and the criterion: 99% of 256 fresh sequences",
        "reproduce/06_one_million_steps", "long_memory", "long_memory", findings.longest,
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
        seen_gpu |= measured.on_gpu
        figure = f"{path.parent.name}/{claim.figure}.png"
        yield row(measured.device_label, _partial(claim.find(measured), measured.left), figure)
    if claim.of_a_gpu and not seen_gpu:
        yield row(A_GPU, Finding("", NOT_MEASURED))
    elif not paths:
        yield row("", Finding("", NOT_MEASURED))


def _partial(finding: Finding, left: int) -> Finding:
    """A finding that says how much of its record is still to be measured, if anything is."""
    return finding._replace(ours=f"{finding.ours} (partial: {left} left)") if left else finding
