"""Training steps to time: loss and gradients of all weights, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrscan.evidence import workspace
from lrscan.experiments import timing
from lrscan.nn import Tokens

Step = Callable[[], tuple[Tensor, ...]]


def gradients(loss: Tensor, *nets: nn.Module) -> tuple[Tensor, ...]:
    """Return the loss and its gradients with respect to all weights."""
    weights = [weight for net in nets for weight in net.parameters()]
    return loss.detach(), *torch.autograd.grad(loss, weights)


def of_read_out(
    net: nn.Module, read_out: nn.Module, x: Tensor | Tokens, loss: Callable[[Tensor], Tensor]
) -> Step:
    """Return a step whose loss takes a linear read-out of the last output."""
    return lambda: gradients(loss(read_out(net(x)[0][-1])), net, read_out)


def rows(
    timings: Mapping[str, timing.Quartiles], identity: Mapping[str, Any], seed: int, runs: int
) -> list[dict[str, Any]]:
    """Return the rows of a training step's times, one for each algorithm."""
    common = {
        "direction": "training",
        "dtype": "float32",
        "precision": "ieee",
        "layout": "TBC",
        "seed": seed,
        "profile": workspace.profile(),
        "runs": runs,
        **identity,
    }
    return [
        common | {"algorithm": algorithm} | timing.columns(quartiles)
        for algorithm, quartiles in timings.items()
    ]
