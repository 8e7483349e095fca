"""The paper's claims, and the verdict of an experiment's records on each.

Source of the claims: E. Martin and C. Cundy, Parallelizing Linear Recurrent Neural Nets Over
Sequence Length (ICLR 2018, arXiv:1709.04057). Every number of ours comes from a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lrscan.evidence import records, workspace
from lrscan.experiments import registry
from lrscan.experiments.verdicts import (
    CPU_CANNOT_TELL,
    CPU_HOLDS,
    HOLDS,
    HOLDS_CURRICULUM,
    HOLDS_PLAIN,
    HOLDS_PRIOR,
    NOT_MEASURED,
    NOT_REPRODUCED,
    NOT_TRIED,
    PARTLY,
    UNDECIDED,
    WEAKER,
    Finding,
)

if TYPE_CHECKING:
    import pandas

A_GPU = "a GPU"
# In the order of what speaks for a claim, with the sign that stands before the words.
_SIGNS = {
    HOLDS: "✓",
    HOLDS_CURRICULUM: "✓",
    HOLDS_PRIOR: "✓",
    HOLDS_PLAIN: "≈",
    PARTLY: "≈",
    WEAKER: "≈",
    CPU_HOLDS: "≈",
    UNDECIDED: "?",
    NOT_REPRODUCED: "✗",
    NOT_TRIED: "–",
    CPU_CANNOT_TELL: "–",
    NOT_MEASURED: "–",
}
_SAYS_NOTHING = (NOT_TRIED, CPU_CANNOT_TELL, NOT_MEASURED)
# Without colours of its own, so that it is as light or dark as the page around it.
_STYLE = """
/* The theme of the book puts HTML outputs on a light ground when the page is dark. */
.cell_output .text_html:has(table.lrscan-claims) {
  background: none !important; color: inherit !important; padding: 0 !important;
}
table.lrscan-claims { width: 100%; border-collapse: collapse; line-height: 1.35; }
table.lrscan-claims tbody tr:nth-child(n) { background: none; }
table.lrscan-claims tr :is(th, td) {
  padding: 0.35rem 0.6rem; text-align: left !important; vertical-align: top;
}
table.lrscan-claims th:first-child { width: 40%; }
table.lrscan-claims .first { border-top: 1px solid rgba(128, 128, 128, 0.5); }
table.lrscan-claims .rest td { padding-top: 0; }
table.lrscan-claims small { display: block; }
table.lrscan-claims :is(summary, ul) { font-size: 0.9em; }
@media (max-width: 40rem) {
  table.lrscan-claims, table.lrscan-claims :is(thead, tbody) { display: block; }
  table.lrscan-claims tr { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); }
  table.lrscan-claims tr > :first-child { grid-column: 1 / -1; width: auto; }
  table.lrscan-claims tr :is(th, td) { padding: 0.15rem 0.3rem; }
}
"""


def family() -> Finding:
    """Judge by their classes which models are linear surrogate RNNs."""
    members = _members()
    inside = [name for name, belongs in members.items() if belongs]
    text = (
        f"{', '.join(inside)}: subclasses of LinearSurrogateRNN, each with a surrogate and a cell"
    )
    text += "; tests/nn/test_equations.py compares each with its equations"
    return Finding(text, HOLDS if all(members.values()) else NOT_REPRODUCED)


def family_size() -> str:
    """Return how many of the models belong to the family."""
    members = _members()
    return f"{sum(members.values())} of {len(members)} models"


def _members() -> dict[str, bool]:
    """Return the models that the claim is about, each with True if it belongs."""
    from lrscan import nn

    models = (nn.SRU, nn.QRNN, nn.StronglyTypedRNN, nn.GILRLSTM)
    return {model.__name__: issubclass(model, nn.LinearSurrogateRNN) for model in models}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id:         C1 to C7
        title:      the claim in a few words
        statement:  the claim in a sentence, in our words
        source:     the place in the paper
        brief:      its number, as short as in a table
        number:     its number, with the device on which it was measured
        differs:    differences between their measurement and ours
        experiment: the experiment that judges it, and whose notebook and first figure show it;
                    empty if it needs no records
        of_a_gpu:   True if it is about a GPU, so that a row says when none was measured
        notebook:   the notebook that shows it, if no experiment does
        find:       judges it, if no experiment does
        headline:   returns our number for it, if no experiment does
    """

    id: str
    title: str
    statement: str
    source: str
    brief: str
    number: str
    differs: str
    experiment: str = ""
    of_a_gpu: bool = True
    notebook: str = ""
    find: Callable[[], Finding] | None = None
    headline: Callable[[], str] | None = None


CLAIMS = (
    Claim(
        id="C1",
        title="A scan gives states and gradients",
        statement="The recurrence is a scan, and its gradients are one more scan, run backwards",
        source="section 2",
        brief="up to rounding",
        number="equal to the serial loop up to rounding",
        differs="we compare with a loop in double precision, within a bound derived from rounding",
        experiment="correctness",
        of_a_gpu=False,
    ),
    Claim(
        id="C2",
        title="The parallel kernel is faster",
        statement="On long sequences the parallel kernel beats the serial one",
        source="Table 1",
        brief="41.8×",
        number="up to 41.8 times as fast (T = 65,536, m = 32, K80)",
        differs="the device; on a GPU we have two baselines, a plain loop like the paper's and a "
        "tuned one",
        experiment="kernel_speedup",
    ),
    Claim(
        id="C3",
        title="The same models train faster",
        statement="The parallel kernel alone speeds up the training of SRU, QRNN and GILR-LSTM",
        source="Table 2",
        brief="9.21×",
        number="up to 9.21 times as fast (SRU, T = 65,536, K80)",
        differs="the device; we time forward and backward, and switch both recurrences of the "
        "GILR-LSTM",
        experiment="training_speedup",
    ),
    Claim(
        id="C4",
        title="Known models are one family",
        statement="SRU, QRNN and strongly typed RNNs are one family; the GILR-LSTM is a new member",
        source="section 3",
        brief="a construction",
        number="a construction",
        differs="the family is a class here, and the models are its subclasses",
        of_a_gpu=False,
        notebook="learn/09_what_else_a_scan_does",
        find=family,
        headline=family_size,
    ),
    Claim(
        id="C5",
        title="GILR-LSTM trains faster than LSTM",
        statement="At small minibatch a GILR-LSTM trains faster than the cuDNN LSTM",
        source="heat map",
        brief="35×",
        number="35 times the throughput (b = 1, T = 131,072, K80)",
        differs="the device and, on a CPU, the rival (torch's own LSTM); both models compute in "
        "full float32",
        experiment="lstm_throughput",
    ),
    Claim(
        id="C6",
        title="GILR-LSTM learns sooner than LSTM",
        statement="A GILR-LSTM converges 6 to 10 times sooner than the cuDNN LSTM on problem 2b",
        source="Table 3",
        brief="9.0×",
        number="9.0 times sooner at T = 1,024, 5.8 times at T = 8,192 (K80)",
        differs="the device and, on a CPU, the rival (torch's own LSTM) and the width (128, not "
        "512); initialisation and learning rate, which we search for both models alike; the "
        "GILR-LSTM looks inputs up by index, the LSTM multiplies one-hot vectors; runs with a "
        "curriculum decide nothing",
        experiment="problem_2b",
    ),
    Claim(
        id="C7",
        title="GILR-LSTM learns a million steps",
        statement="A GILR-LSTM learns a dependence one million steps long, the cuDNN LSTM does not",
        source="Table 3",
        brief="1,048,576 steps",
        number="14,000 iterations, 9.7 h (T = 1,048,576, K80); the LSTM: not in several days",
        differs="the device, the initialisation, a curriculum, and the criterion: 99% of 256 fresh "
        "sequences",
        experiment="long_memory",
    ),
)


class Judgement(NamedTuple):
    """The verdict on a claim by the records of one device.

    Attributes:
        device:   its name; empty for a claim that needs no device
        finding:  the verdict and our measurement in words
        headline: our number; empty if there is none
        figure:   the figure of these records, below the folder of figures
        on_gpu:   True if the device is a GPU
        left:     how much of the measurement is missing
    """

    device: str
    finding: Finding
    headline: str = ""
    figure: str = ""
    on_gpu: bool = False
    left: int = 0


def table(directory: Path | None = None) -> pandas.DataFrame:
    """Return every claim with our measurements, a row per claim and device.

    Args:
        directory: the folder of the records; default: the committed ones

    Returns:
        Columns: id, claim, source, paper, device, ours, ratio (ours over the paper's; missing
        where the two are not comparable), differs, verdict, notebook, figure. A claim about GPUs
        has a row that says so if no GPU was measured.
    """
    import pandas

    return pandas.DataFrame(
        [
            {
                "id": claim.id,
                "claim": claim.statement,
                "source": claim.source,
                "paper": claim.number,
                "device": one.device,
                "ours": one.finding.ours,
                "ratio": one.finding.ratio,
                "differs": claim.differs,
                "verdict": one.finding.verdict,
                "notebook": _notebook(claim),
                "figure": one.figure,
            }
            for claim in CLAIMS
            for one in _judgements(claim, directory)
        ]
    )


def compact_html(
    *, link: Callable[[str], str], details: bool = False, directory: Path | None = None
) -> str:
    """Return the claims as an HTML table that fits on a screen, also on that of a phone.

    Each claim has the paper's number, one of ours, the verdict, and a link to its notebook. The
    number of ours is that of a device whose records say something about the claim, with a complete
    measurement rather than a partial one, on a GPU rather than a CPU.

    Args:
        link:      returns the address of a notebook, such as "reproduce/01_correctness"
        details:   add a part to every claim that unfolds: every device, and what differs from the
                   paper
        directory: the folder of the records; default: the committed ones
    """
    rows = "".join(_html_row(claim, link, details, directory) for claim in CLAIMS)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Paper", "Ours", "Verdict"))
    body = rows if details else f"<tbody>{rows}</tbody>"
    return (
        f"<style>{_STYLE}</style>\n"
        f'<table class="lrscan-claims">\n<thead><tr>{head}</tr></thead>\n{body}</table>'
    )


def _html_row(
    claim: Claim, link: Callable[[str], str], details: bool, directory: Path | None
) -> str:
    """The row of a claim; with details, a body of two rows."""
    found = list(_judgements(claim, directory))
    best = max(found, key=_precedence)
    address = escape(link(_notebook(claim)))
    device = ", ".join(best.device.split(", ")[:2])  # the details have all of it
    ours = escape(best.headline) + f"<small>{escape(device)}</small>" * bool(best.headline)
    row = (
        f'<tr class="first"><th scope="row">{claim.id} <a href="{address}">'
        f"{escape(claim.title)}</a></th><td>{escape(claim.brief)}</td><td>{ours or '–'}</td>"
        f"<td>{_signed(best)}</td></tr>\n"
    )
    if not details:
        return row
    devices = "".join(f"<li>{_html_of_device(one)}</li>" for one in found)
    return (
        f'<tbody>{row}<tr class="rest"><td colspan="4"><details><summary>Every device, and what '
        f"differs</summary>\n<ul><li>The claim ({escape(claim.source)}): "
        f"{escape(claim.statement)}.</li><li>The paper: {escape(claim.number)}.</li>"
        f"<li>What differs: {escape(claim.differs)}.</li>{devices}</ul>"
        "</details></td></tr></tbody>\n"
    )


def _html_of_device(one: Judgement) -> str:
    """The verdict of one device in full."""
    device = f"{escape(one.device)}: " * bool(one.device)
    text = f"<b>{device}{escape(one.finding.verdict)}</b>"
    if one.finding.ours:
        text += f": {escape(one.finding.ours)}"
    if one.finding.ratio is not None:
        text += f". Our number is {one.finding.ratio:.2f} times the paper's"
    if one.figure:
        text += f". Figure: <code>figures/{escape(one.figure)}</code>"
    return text + "."


def _signed(one: Judgement) -> str:
    """The words of a verdict behind a sign."""
    partial = " (partial)" * bool(one.left)
    verdict = one.finding.verdict
    return f'<span aria-hidden="true">{_SIGNS[verdict]}</span> {escape(verdict)}{partial}'


def _precedence(one: Judgement) -> tuple[bool, bool, bool, int]:
    """Return what decides which device speaks for a claim: the one with the largest value."""
    verdict = one.finding.verdict
    order = list(_SIGNS).index(verdict)
    return verdict not in _SAYS_NOTHING, not one.left, one.on_gpu, -order


def _notebook(claim: Claim) -> str:
    return registry.load(claim.experiment).notebook if claim.experiment else claim.notebook


def _judgements(claim: Claim, directory: Path | None) -> Iterator[Judgement]:
    """The verdict on a claim by every device that has records for it."""
    directory = workspace.committed_records() if directory is None else Path(directory)
    experiment = registry.load(claim.experiment) if claim.experiment else None
    if experiment is None or experiment.verdict is None:
        if claim.find is None or claim.headline is None:
            raise ValueError(f"{claim.id}: neither an experiment nor a function judges it")
        yield Judgement("", claim.find(), claim.headline())
        return
    seen_gpu = False
    paths = sorted(directory.glob(f"*/{experiment.name}.csv"))
    for path in paths:
        measured = records.read(path.stem, path.parent.name, directory=directory)
        seen_gpu |= measured.on_gpu
        yield Judgement(
            measured.device_label,
            _partial(experiment.verdict(measured), measured.left),
            experiment.headline(measured) if experiment.headline else "",
            f"{path.parent.name}/{next(iter(experiment.figures))}.png",
            measured.on_gpu,
            measured.left,
        )
    if claim.of_a_gpu and not seen_gpu:
        yield Judgement(A_GPU, Finding("", NOT_MEASURED))
    elif not paths:
        yield Judgement("", Finding("", NOT_MEASURED))


def _partial(finding: Finding, left: int) -> Finding:
    """The finding, and how much of its record is still to be measured, if anything is."""
    return finding._replace(ours=f"{finding.ours} (partial: {left} left)") if left else finding
