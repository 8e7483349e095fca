"""One step of Adam, in ordinary calls or as a CUDA graph that is captured once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrscan.nn.inputs import Tokens
from lrscan.train.settings import Classifier, Settings

_WARM_UP = 3  # calls before a capture, in which libraries allocate their workspaces


class Step:
    """Forward, backward, clipping and Adam on one minibatch.

    Args:
        settings: of the run
        model:    on its device
        graph:    replay the step as a CUDA graph: a step of short kernels is otherwise bound by
                  their launches
    """

    def __init__(self, settings: Settings, model: Classifier, graph: bool) -> None:
        self.model, self.clip, self.graph = model, settings.clip, graph
        self.smoothing = settings.label_smoothing
        self.captured: tuple[torch.cuda.CUDAGraph, Tokens, Tensor, Tensor] | None = None
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=settings.rate, fused=True, capturable=graph
        )

    def __call__(self, tokens: Tokens, label: Tensor) -> tuple[float, float, float]:
        """(loss, accuracy, norm of the gradient before clipping) on one minibatch."""
        if not self.graph:
            return tuple(self._step(tokens, label).tolist())
        if self.captured is None:
            self.captured = self._capture(tokens, label)
        graph, held, held_label, result = self.captured
        for room, given in zip(held, tokens, strict=True):
            if room is not None and given is not None:
                room.copy_(given)
        held_label.copy_(label)
        graph.replay()
        return tuple(result.tolist())

    def prepare(self, tokens: Tokens, label: Tensor) -> None:
        """Compile, or capture the graph, on a minibatch; parameters and optimiser stay as they are.

        A captured graph is for minibatches of this shape, and stays while they have it.
        """
        if not self.graph:
            self.without_trace(tokens, label, 1)
        elif self.captured is None or self.captured[1].index.shape != tokens.index.shape:
            self.captured = None  # so that its memory is free for the next one
            self.captured = self._capture(tokens, label)

    def load(self, optimizer: dict[str, Any]) -> None:
        """Take over an optimiser's state, which may be that of steps taken the other way."""
        self.optimizer.load_state_dict(optimizer)
        for group in self.optimizer.param_groups:
            group["capturable"] = self.graph

    def _step(self, tokens: Tokens, label: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        logit = self.model(tokens)
        target = label + self.smoothing * (0.5 - label)
        loss = F.binary_cross_entropy_with_logits(logit, target)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        right = ((logit > 0) == (label > 0)).float().mean()
        return torch.stack([loss.detach(), right, norm])

    def without_trace(self, tokens: Tokens, label: Tensor, calls: int) -> None:
        """Take steps, and put parameters and optimiser back as they were."""
        parameters = [(p, p.detach().clone()) for p in self.model.parameters()]
        state = {p: {k: v.clone() for k, v in s.items()} for p, s in self.optimizer.state.items()}
        for _ in range(calls):
            self._step(tokens, label)
        with torch.no_grad():
            for parameter, before in parameters:
                parameter.copy_(before)
                for name, value in self.optimizer.state[parameter].items():
                    # Adam makes its state, all zeros, at the first step.
                    value.copy_(state.get(parameter, {}).get(name, torch.zeros_like(value)))

    def _capture(
        self, tokens: Tokens, label: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tokens, Tensor, Tensor]:
        held, held_label = tokens.map(torch.clone), label.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.without_trace(held, held_label, _WARM_UP)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._step(held, held_label)
        return graph, held, held_label, result
