"""What ranks have to agree on before data moves: a header of some numbers, compared by all."""

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
    """What a rank is about to do.

    operation  one of linear_recurrence and history
    dtype      of the result
    dim        the axis of time
    direction  of time: 1 if from the last rank to the first
    end        1 if the state after the last step of all is wanted
    columns    extents of a state
    steps      of this rank's chunk: may differ
    gradient   1 if a gradient may be asked for: it then is on every rank
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
        a function that waits for the headers of all ranks, in the order of time

    Raises:
        ValueError: the ranks disagree; every rank raises it, and says on what (when waiting)
        RankError:  a rank refused its arguments, is dead or is late (when waiting)
    """
    if len(header.columns) > _MOST_AXES:
        raise ValueError(f"at most {_MOST_AXES} axes beside time, not {len(header.columns)}")
    wait = _send(peers, _numbers(header), header.operation, device)

    def compared() -> list[Header]:
        headers = []
        for position, numbers in enumerate(wait().tolist()):
            rank = peers.size - 1 - position if peers.turned else position
            if not numbers[0]:
                raise RankError(f"{header.operation}: rank {rank} refused its arguments", [rank])
            headers.append(_header(numbers))
        for name in _COMPARED:
            values = [getattr(own, name) for own in headers]
            if any(value != values[0] for value in values):
                ranks = values[::-1] if peers.turned else values
                told = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(ranks))
                raise ValueError(f"{header.operation}: the ranks disagree on {name}: {told}")
        return headers

    return compared


def refuse(peers: Peers, operation: str, device: torch.device | None) -> None:
    """Tell the others that this rank's arguments are wrong, so that they need not wait for it."""
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
