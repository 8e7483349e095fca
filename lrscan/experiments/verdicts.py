"""The words of a verdict on a claim of the paper, and the type that carries one."""

from typing import NamedTuple

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


class Finding(NamedTuple):
    """What a record says of a claim.

    ours     in words and numbers
    verdict  one of the words above
    ratio    our number over the paper's, where both are of one kind
    """

    ours: str
    verdict: str
    ratio: float | None = None
