"""The verdicts on claims of the paper, and the type of a judgement."""

from typing import NamedTuple

HOLDS = "holds"
HOLDS_CURRICULUM = "holds with a curriculum"
HOLDS_PRIOR = "holds with a prior on where to look"
HOLDS_PLAIN = "holds against the plain loop only"
PARTLY = "holds at the sizes tried"
WEAKER = "same direction, smaller effect"
CPU_HOLDS = "holds on a CPU"
UNDECIDED = "undecided"
NOT_REPRODUCED = "not reproduced"
NOT_TRIED = "not tried at this length"
CPU_CANNOT_TELL = "a CPU cannot tell"
NOT_MEASURED = "not measured yet"


class Finding(NamedTuple):
    """The judgement on a claim of the paper.

    Attributes:
        ours:    our measurement in words and numbers
        verdict: one of the constants of this module
        ratio:   our number over the paper's, where the two are comparable
    """

    ours: str
    verdict: str
    ratio: float | None = None


def times(ratio: float) -> str:
    """Return a ratio as short text, such as "1,001×" or "1.27×"."""
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.3g}×"
