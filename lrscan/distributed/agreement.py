"""Agreement of the ranks before data moves.

Every rank sends a header of a few numbers to all others, and every rank compares the headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lrscan.core.dtypes import DTYPES
from lrscan.distributed.exchange import Peers, RankError

_MOST_AXES = 12
_OPERATIONS = ("linear_recurrence", "history")


class Header(NamedTuple):
    """Operation that a rank is about to begin.

    Attributes:
        operation: "linear_recurrence" or "history"
        dtype: the dtype of the result
        dim: the axis of time
        direction: True if time runs from the last rank to the first
        end: True if the caller needs the state after the last step of the last chunk
        columns: the shape of a state
        steps: the number of steps of this rank's chunk; may differ between ranks
        gradient: True if this rank may call backward; may differ between ranks. If it is True on
            one rank, every rank takes part in backward
    """

    operation: str
    dtype: torch.dtype
    dim: int
    direction: bool
    end: bool
    columns: tuple[int, ...]
    steps: int
    gradient: bool


_COMPARED = ("operation", "dtype", "dim", "direction", "end", "columns")


def agree(peers: Peers, header: Header, device: torch.device) -> Callable[[], list[Header]]:
    """Begin to compare headers.

    Returns:
        A function that waits for the headers of all ranks and returns them in the order of time.
        It raises ValueError on every rank if the ranks disagree, and names the field. It raises
        RankError if a rank refused its arguments, is dead or is late.

    Raises:
        ValueError: the state has too many axes
    """
    if len(header.columns) > _MOST_AXES:
        raise ValueError(
            f"{header.operation} over ranks takes a state of at most {_MOST_AXES} axes, not "
            f"{len(header.columns)}; flatten some of them"
        )
    wait = _send(peers, _numbers(header), header.operation, device)

    def compared() -> list[Header]:
        headers = []
        for position, numbers in enumerate(wait().tolist()):
            rank = peers.size - 1 - position if peers.turned else position
            if not numbers[0]:
                raise RankError(
                    f"{header.operation}: rank {rank} refused its arguments; see its own error",
                    [rank],
                )
            headers.append(_header(numbers))
        for name in _COMPARED:
            values = [getattr(own, name) for own in headers]
            if any(value != values[0] for value in values):
                by_rank = values[::-1] if peers.turned else values
                listed = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(by_rank))
                raise ValueError(
                    f"{header.operation}: the ranks disagree on {name}: {listed}; "
                    "it must be the same on every rank"
                )
        return headers

    return compared


def refuse(peers: Peers, operation: str, device: torch.device | None) -> None:
    """Send a header of zeros: this rank refused its arguments, and no rank need wait for it."""
    _send(peers, [0] * (8 + _MOST_AXES), operation, device)()


def _send(
    peers: Peers, numbers: Sequence[int], operation: str, device: torch.device | None
) -> Callable[[], Tensor]:
    own = torch.tensor(numbers, dtype=torch.int64, device=peers.device or device)
    return peers.gather(own, f"agreement on {operation}")


def _numbers(header: Header) -> list[int]:
    filled = [*header.columns, *[-1] * (_MOST_AXES - len(header.columns))]
    return [
        1 + _OPERATIONS.index(header.operation),
        DTYPES.index(header.dtype),
        header.dim,
        header.direction,
        header.end,
        header.steps,
        header.gradient,
        len(header.columns),
        *filled,
    ]


def _header(numbers: Sequence[int]) -> Header:
    operation, dtype, dim, direction, end, steps, gradient, axes, *columns = numbers
    return Header(
        _OPERATIONS[operation - 1],
        DTYPES[dtype],
        dim,
        bool(direction),
        bool(end),
        tuple(columns[:axes]),
        steps,
        bool(gradient),
    )
