"""One training step with Adam: as ordinary calls, or as a CUDA graph that is captured once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrscan.nn.inputs import Tokens
from lrscan.train.settings import Classifier, Settings

_WARM_UP = 3  # calls before a capture, during which libraries allocate their workspaces


class Step:
    """Forward, backward, clipping and Adam on one minibatch.

    Args:
        settings: the settings of the run
        model: the model, on its device
        graph: replay the step as a CUDA graph; otherwise launches limit a step of short kernels
    """

    def __init__(self, settings: Settings, model: Classifier, graph: bool) -> None:
        self.model, self.clip, self.graph = model, settings.clip, graph
        self.smoothing = settings.label_smoothing
        self.captured: tuple[torch.cuda.CUDAGraph, Tokens, Tensor, Tensor] | None = None
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=settings.rate, fused=True, capturable=graph
        )

    def __call__(self, tokens: Tokens, label: Tensor) -> tuple[float, float, float]:
        """Take a step; return (loss, accuracy, norm of the gradient before clipping)."""
        if not self.graph:
            return tuple(self._step(tokens, label).tolist())
        if self.captured is None:
            self.captured = self._capture(tokens, label)
        graph, token_buffers, label_buffer, result = self.captured
        for buffer, given in zip(token_buffers, tokens, strict=True):
            if buffer is not None and given is not None:
                buffer.copy_(given)
        label_buffer.copy_(label)
        graph.replay()
        return tuple(result.tolist())

    def prepare(self, tokens: Tokens, label: Tensor) -> None:
        """Compile the step or capture its graph on a minibatch, without changing the parameters.

        The optimizer does not change either. A graph fits minibatches of one shape; it is captured
        again when the shape changes.
        """
        if not self.graph:
            self.dry_run(tokens, label, 1)
        elif self.captured is None or self.captured[1].index.shape != tokens.index.shape:
            self.captured = None  # free its memory for the next one
            self.captured = self._capture(tokens, label)

    def load(self, optimizer: dict[str, Any]) -> None:
        """Load an optimizer state, which may come from steps with or without a graph."""
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

    def dry_run(self, tokens: Tokens, label: Tensor, calls: int) -> None:
        """Take steps, then restore the parameters and the optimizer."""
        parameters = [(p, p.detach().clone()) for p in self.model.parameters()]
        state = {p: {k: v.clone() for k, v in s.items()} for p, s in self.optimizer.state.items()}
        for _ in range(calls):
            self._step(tokens, label)
        with torch.no_grad():
            for parameter, before in parameters:
                parameter.copy_(before)
                for name, value in self.optimizer.state[parameter].items():
                    # Adam creates its state, all zeros, at the first step.
                    value.copy_(state.get(parameter, {}).get(name, torch.zeros_like(value)))

    def _capture(
        self, tokens: Tokens, label: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tokens, Tensor, Tensor]:
        token_buffers, label_buffer = tokens.map(torch.clone), label.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.dry_run(token_buffers, label_buffer, _WARM_UP)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._step(token_buffers, label_buffer)
        return graph, token_buffers, label_buffer, result
