"""The paper's claims, each with the verdict that an experiment reads from its records.

Source of the claims: E. Martin and C. Cundy, Parallelizing Linear Recurrent Neural Nets Over
Sequence Length (ICLR 2018, arXiv:1709.04057). Every number of ours comes from a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscan.evidence import records, workspace
from lrscan.experiments import registry
from lrscan.experiments.verdicts import HOLDS, NOT_MEASURED, NOT_REPRODUCED, Finding

if TYPE_CHECKING:
    import pandas

A_GPU = "a GPU"


def family() -> Finding:
    """Which models are linear surrogate RNNs."""
    from lrscan import nn

    members = (nn.SRU, nn.QRNN, nn.StronglyTypedRNN, nn.GILRLSTM)
    inside = [one.__name__ for one in members if issubclass(one, nn.LinearSurrogateRNN)]
    text = f"{', '.join(inside)}: each one surrogate and one cell of one class"
    text += "; tests/nn/test_equations.py holds each against its equations"
    return Finding(text, HOLDS if len(inside) == len(members) else NOT_REPRODUCED)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    id          C1 to C7
    statement   what the paper says, in our words
    source      where it says so
    number      its number, with the device it was measured on
    differs     what differs between their measurement and ours
    experiment  the experiment whose verdict it gets, and whose notebook and first figure show it;
                empty if it needs no records
    of_a_gpu    whether it is about a GPU, so that a row says when none was measured
    notebook    where it is shown, if by no experiment
    find        its verdict, if from no records
    """

    id: str
    statement: str
    source: str
    number: str
    differs: str
    experiment: str = ""
    of_a_gpu: bool = True
    notebook: str = ""
    find: Callable[[], Finding] | None = None


CLAIMS = (
    Claim(
        id="C1",
        statement="The recurrence is a scan, and its gradients are one more scan, run backwards",
        source="section 2",
        number="equal to the serial loop up to rounding",
        differs="held against a loop in double precision, with a bound from rounding",
        experiment="correctness",
        of_a_gpu=False,
    ),
    Claim(
        id="C2",
        statement="On long sequences the parallel kernel beats the serial one",
        source="Table 1",
        number="up to 41.8x (T = 65,536, m = 32, K80)",
        differs="the device; on a GPU the baseline is a plain loop as the paper's, beside a tuned "
        "one",
        experiment="kernel_speedup",
    ),
    Claim(
        id="C3",
        statement="The parallel kernel alone speeds up the training of SRU, QRNN and GILR-LSTM",
        source="Table 2",
        number="up to 9.21x (SRU, T = 65,536, K80)",
        differs="the device; forward and backward are timed, and both recurrences of the "
        "GILR-LSTM switch",
        experiment="training_speedup",
    ),
    Claim(
        id="C4",
        statement="SRU, QRNN and strongly typed RNNs are one family; the GILR-LSTM is a new member",
        source="section 3",
        number="a construction",
        differs="it is a class here, and the models are its instances",
        of_a_gpu=False,
        notebook="learn/09_what_else_a_scan_does",
        find=family,
    ),
    Claim(
        id="C5",
        statement="At small minibatch a GILR-LSTM trains faster than the cuDNN LSTM",
        source="heat map",
        number="35x (b = 1, T = 131,072, K80)",
        differs="the device and, on a CPU, the rival: torch's own LSTM; full float32 on both sides",
        experiment="lstm_throughput",
    ),
    Claim(
        id="C6",
        statement="A GILR-LSTM converges 6 to 10 times sooner than the cuDNN LSTM on problem 2b",
        source="Table 3",
        number="9.0 times at T = 1,024, 5.8 times at T = 8,192 (K80)",
        differs="the device and, on a CPU, the rival (torch's own LSTM) and the width (128, not "
        "512); initialisation and learning rate, searched for both alike; the GILR-LSTM looks "
        "inputs up by index, the LSTM multiplies one-hot vectors; runs with a curriculum decide "
        "nothing",
        experiment="problem_2b",
    ),
    Claim(
        id="C7",
        statement="A GILR-LSTM learns a dependence one million steps long, the cuDNN LSTM does not",
        source="Table 3",
        number="14,000 iterations, 9.7 h (T = 1,048,576, K80); the LSTM: not in several days",
        differs="the device, initialisation, a curriculum, and the criterion: 99% of 256 fresh "
        "sequences",
        experiment="long_memory",
    ),
)


def table(directory: Path | None = None) -> pandas.DataFrame:
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
    experiment = registry.load(claim.experiment) if claim.experiment else None
    notebook = experiment.notebook if experiment else claim.notebook

    def row(device: str, finding: Finding, figure: str = "") -> dict[str, Any]:
        return {
            "id": claim.id,
            "claim": claim.statement,
            "source": claim.source,
            "paper": claim.number,
            "device": device,
            "ours": finding.ours,
            "ratio": finding.ratio,
            "differs": claim.differs,
            "verdict": finding.verdict,
            "notebook": notebook,
            "figure": figure,
        }

    if experiment is None or experiment.verdict is None:
        if claim.find is None:
            raise ValueError(f"{claim.id}: nothing has a verdict on it")
        yield row("", claim.find())
        return
    seen_gpu = False
    paths = sorted(directory.glob(f"*/{experiment.name}.csv"))
    for path in paths:
        measured = records.read(path.stem, path.parent.name, directory=directory)
        seen_gpu |= measured.on_gpu
        figure = f"{path.parent.name}/{next(iter(experiment.figures))}.png"
        finding = _partial(experiment.verdict(measured), measured.left)
        yield row(measured.device_label, finding, figure)
    if claim.of_a_gpu and not seen_gpu:
        yield row(A_GPU, Finding("", NOT_MEASURED))
    elif not paths:
        yield row("", Finding("", NOT_MEASURED))


def _partial(finding: Finding, left: int) -> Finding:
    """The finding with how much of its record is still to be measured, if anything is."""
    return finding._replace(ours=f"{finding.ours} (partial: {left} left)") if left else finding
