"""What a training run is: its settings, its model, and the name that both give it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

import lrscan.nn as models
from lrscan.core.checks import ALGORITHMS, said
from lrscan.nn.init import chrono, early, graded, reset_gates, scaled
from lrscan.nn.inputs import Tokens
from lrscan.nn.stack import RecurrentStack
from lrscan.tasks import DISTRACTORS

# "LSTM" is torch's own, which runs cuDNN on a GPU.
MODELS = (*models.MODELS, "LSTM")
INITIALISATIONS = ("constant", "chrono", "scaled", "graded", "early")
CRITERIA = ("strict", "paper", "never")


def _real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Settings:
    """A training run on problem 2b; the same settings on one device give the same run.

    model           one of MODELS
    steps, width    T and p of the task
    start_steps     length of the first minibatches: a curriculum, in which it doubles up to
                    `steps` whenever five minibatches in a row were right; 0: all have `steps`
    distractors     "any" or "apart", see :func:`lrscan.tasks.problem_2b`
    hidden, layers  hidden units and stacked layers
    batch           sequences in a minibatch
    start_batch     sequences in the first minibatches of a curriculum, fewer once they would hold
                    more steps than the last ones, `batch` times `steps`; 0: `batch`
    rate            learning rate of Adam
    clip            largest norm of the gradient
    label_smoothing share of a label that is spread evenly over both classes (Szegedy et al. 2016),
                    so that a net that is sure still has a gradient; 0: none
    initialisation  "constant" (forget bias `forget_bias`), or the name of a function of lrscan.nn:
                    "chrono", "scaled", "graded" or "early"
    forget_bias     of the initialisation "constant"
    algorithm       how the recurrences are evaluated
    iterations      where to give up; a run that gave up earlier goes on from its checkpoint
    until           "strict": stop at 99% of 256 fresh sequences; "paper": after five minibatches
                    in a row without a mistake; "never": go on to the last iteration
    evaluate_every  fewest iterations between two evaluations on fresh sequences
    seed            of the initial weights and of all sequences
    """

    model: str = "GILRLSTM"
    steps: int = 256
    start_steps: int = 0
    width: int = 128
    distractors: str = "any"
    hidden: int = 128
    layers: int = 2
    batch: int = 8
    start_batch: int = 0
    rate: float = 2e-3
    clip: float = 1.0
    label_smoothing: float = 0.0
    initialisation: str = "scaled"
    forget_bias: float = 1.0
    algorithm: str = "auto"
    iterations: int = 2000
    until: str = "strict"
    evaluate_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "model": MODELS,
            "distractors": DISTRACTORS,
            "initialisation": INITIALISATIONS,
            "until": CRITERIA,
            "algorithm": {n: None for a in ALGORITHMS.values() for n in a},
        }
        for name, allowed in choices.items():
            if not isinstance(value := getattr(self, name), str) or value not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {said(value)}")
        least = {"steps": 3, "width": 2, "seed": 0, "start_steps": 0, "start_batch": 0}
        for name in ("hidden", "layers", "batch", "iterations", "evaluate_every", *least):
            value, bound = getattr(self, name), least.get(name, 1)
            if not isinstance(value, int) or isinstance(value, bool) or value < bound:
                raise ValueError(f"{name} is an int of at least {bound}, not {said(value)}")
        for name in ("rate", "clip"):
            if not _real(value := getattr(self, name)) or not 0 < value < math.inf:
                raise ValueError(f"{name} is a number above zero, not {said(value)}")
        if not _real(self.forget_bias) or not math.isfinite(self.forget_bias):
            raise ValueError(f"forget_bias is a finite number, not {said(self.forget_bias)}")
        if not _real(self.label_smoothing) or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is a number from 0 to below 1, not {said(self.label_smoothing)}"
            )
        if self.start_steps and not 3 <= self.start_steps <= self.steps:
            raise ValueError(f"start_steps is 0 or from 3 to {self.steps}, not {self.start_steps}")
        if self.start_batch and (not self.start_steps or self.start_batch < self.batch):
            raise ValueError(
                f"start_batch is of a curriculum, and {self.batch} at least, not {self.start_batch}"
            )

    def batch_at(self, steps: int) -> int:
        """How many sequences of this length a minibatch has."""
        return min(self.start_batch or self.batch, self.batch * self.steps // steps)

    def name(self) -> str:
        """A file's name for this run: readable, and another one for any other settings.

        ``iterations`` has no part in it: a run is the same, wherever it is given up. Nor has what
        is at its default, so that a run keeps its name when there is one more setting.
        """
        values = [(one, getattr(self, one.name)) for one in fields(self)]
        chosen = {one.name: value for one, value in values if value != one.default}
        chosen.pop("iterations", None)
        text = json.dumps(chosen, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.model}-T{self.steps}-seed{self.seed}-{digest}"


class Classifier(nn.Module):
    """A recurrent net with a linear read-out of its last output: one logit a sequence."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        super().__init__()
        sizes = (settings.width, settings.hidden, settings.layers)
        self.net: nn.LSTM | RecurrentStack
        if settings.model == "LSTM":
            self.net = nn.LSTM(*sizes, device=device)
        else:
            make = models.MODELS[settings.model]
            self.net = make(*sizes, algorithm=settings.algorithm, device=device)
        self.read_out = nn.Linear(settings.hidden, 1, device=device)
        self.reset_parameters(settings)

    def forward(self, tokens: Tokens) -> Tensor:
        x: Tokens | Tensor = tokens
        if isinstance(self.net, nn.LSTM):  # it takes no look-ups
            x = tokens.dense(self.net.input_size, self.read_out.weight.dtype)
        return self.read_out(self.net(x)[0][-1]).squeeze(-1)

    def reset_parameters(self, settings: Settings) -> None:
        """Draw all parameters again, from torch's generator."""
        for layer, options in enumerate(_options(settings)):
            if isinstance(self.net, nn.LSTM):
                _reset_torch_lstm(self.net, layer, options)
            else:
                self.net.layers[layer].reset_parameters(**options)
        nn.init.xavier_uniform_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)


def _options(settings: Settings) -> list[dict[str, Any]]:
    """The options of each layer's reset_parameters."""
    steps, layers = settings.steps, settings.layers
    start = settings.start_steps or steps
    every = {
        "constant": lambda: [{"forget_bias": settings.forget_bias}] * layers,
        "chrono": lambda: [chrono(steps)] * layers,
        "scaled": lambda: [scaled(steps, settings.rate, start)] * layers,
        "graded": lambda: graded(steps, layers, start),
        "early": lambda: early(steps, layers, settings.hidden),
    }
    return every[settings.initialisation]()


def _reset_torch_lstm(net: nn.LSTM, layer: int, options: dict[str, Any]) -> None:
    """The initialisations of `lrscan.nn` for torch's LSTM, with its order of the gates."""
    gates = ("input", "forget", "candidate", "output")
    weight_x, weight_h, bias, other = (
        getattr(net, f"{name}_l{layer}").data
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    reset_gates([weight_x, weight_h], bias, net.hidden_size, gates, gates, **options)
    other.zero_()
