"""The paper's claims, each with what the records say about it.

Source of the claims: E. Martin and C. Cundy, Parallelizing Linear Recurrent Neural Nets Over
Sequence Length (ICLR 2018, arXiv:1709.04057). Every number of ours comes from a record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrscan import records, workspace
from lrscan.records import Records

if TYPE_CHECKING:
    import pandas

NOT_MEASURED = "not measured yet"


@dataclass(frozen=True)
class Claim:
    """A claim, and how a record is read for it.

    id          C1 to C7
    statement   what the paper says, in our words
    source      where it says so
    number      its number, with the device it was measured on
    experiment  the records that bear on it; empty if there is no such experiment yet
    ours        from a record to our number, and whether the claim holds there; None if the
                device cannot tell
    """

    id: str
    statement: str
    source: str
    number: str
    experiment: str = ""
    ours: Callable[[Records], tuple[str, bool | None]] | None = None


def _correctness(measured: Records) -> tuple[str, bool | None]:
    share = (measured.table["error"] / measured.table["bound"]).max()
    told = f"error at most {share:.2f} of what rounding allows, in {len(measured.table)} checks"
    return told, bool(share <= 1)


def _kernel_speedup(measured: Records) -> tuple[str, bool | None]:
    from lrscan import bench

    ours = bench.speedups(measured)
    gpu = measured.provenance["measurements"][-1]["device_type"] == "cuda"
    if gpu:
        ours = ours[ours["baseline"] == "serial_paper"]
    best = ours.loc[ours["speedup"].idxmax()]
    told = f"{best['speedup']:.1f}x ({best['algorithm']}, T = {best['T']:,}, m = {best['C']})"
    return told, bool(best["speedup"] > 1) if gpu else None


CLAIMS = (
    Claim(
        "C1", "The recurrence is a scan, and its gradients are one more scan, run backwards",
        "section 2", "equal to the serial loop up to rounding", "correctness", _correctness,
    ),
    Claim(
        "C2", "On long sequences the parallel kernel beats the serial one",
        "Table 1", "up to 41.8x (T = 65,536, m = 32, K80)", "kernel_speedup", _kernel_speedup,
    ),
    Claim(
        "C3", "The parallel kernel alone speeds up the training of SRU, QRNN and GILR-LSTM",
        "Table 2", "up to 9.21x (SRU, T = 65,536, K80)",
    ),
    Claim(
        "C4", "SRU, QRNN and strongly typed RNNs are one family; the GILR-LSTM is a new member",
        "section 3", "a construction",
    ),
    Claim(
        "C5", "At small minibatch a GILR-LSTM trains faster than the cuDNN LSTM",
        "heat map", "35x (b = 1, T = 131,072, K80)",
    ),
    Claim(
        "C6", "A GILR-LSTM converges 6 to 10 times sooner than the cuDNN LSTM on problem 2b",
        "Table 3", "0.031 h against 0.28 h (T = 1,024, K80)",
    ),
    Claim(
        "C7", "A GILR-LSTM learns a dependence one million steps long",
        "Table 3", "14,000 iterations, 9.7 h (T = 1,048,576, K80)",
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
        Columns: id, claim, source, paper, device, ours, holds ("yes", "no", or why it is open).
    """
    import pandas

    directory = workspace.committed_records() if directory is None else Path(directory)
    rows = []
    for claim in CLAIMS:
        about = {
            "id": claim.id, "claim": claim.statement, "source": claim.source,
            "paper": claim.number,
        }  # fmt: skip
        paths = sorted(directory.glob(f"*/{claim.experiment}.csv")) if claim.ours else []
        for path in paths:
            measured = records.read(path.stem, path.parent.name, directory=directory)
            told, holds = claim.ours(measured)  # type: ignore[misc]
            word = {True: "yes", False: "no", None: "it is about a GPU"}[holds]
            rows.append(about | {"device": measured.device_label, "ours": told, "holds": word})
        if not paths:
            rows.append(about | {"device": "", "ours": "", "holds": NOT_MEASURED})
    return pandas.DataFrame(rows)
