"""Settings of a training run, and the model and the name that follow from them."""

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
    """Settings of a training run on problem 2b; on one device they determine the run.

    Attributes:
        model: name of a model in ``lrscan.nn``, or "LSTM" for ``nn.LSTM``
        steps: T of the task, at least 3
        start_steps: length of the first sequences in a curriculum. It doubles, up to ``steps``,
            each time that five consecutive minibatches have no mistake. 0 for no curriculum
        width: p of the task, at least 2
        distractors: "any" or "apart", see :func:`lrscan.tasks.problem_2b`
        hidden: hidden units
        layers: stacked layers
        batch: sequences per minibatch
        start_batch: sequences in the first minibatches of a curriculum. A minibatch never has more
            steps in total than the last ones, ``batch`` times ``steps``, and as its sequences grow
            it gets fewer of them. 0 for ``batch``
        rate: learning rate of Adam
        clip: largest norm of the gradient
        label_smoothing: share of a label that is spread evenly over both classes (Szegedy et al.
            2016), so that a confident net still has a gradient; 0 for none
        initialisation: "constant" (forget bias ``forget_bias``), or the name of a function in
            ``lrscan.nn``: "chrono", "scaled", "graded" or "early"
        forget_bias: forget bias of the initialisation "constant"
        algorithm: algorithm of the recurrences, see :func:`lrscan.linear_recurrence`
        iterations: limit after which the run gives up. With a higher limit, a run that gave up
            continues from its checkpoint
        until: criterion to stop: "strict" at 99% of 256 fresh sequences, "paper" after five
            consecutive minibatches without a mistake, "never" at the last iteration
        evaluate_every: smallest number of iterations between two evaluations on fresh sequences
        seed: seed of the initial weights and of all sequences

    Raises:
        ValueError: a setting does not fit; the message names it and its value

    Example:
        >>> from lrscan.train import Settings
        >>> settings = Settings(model="SRU", steps=1024, initialisation="chrono", seed=3)
        >>> settings.name()
        'SRU-T1024-seed3-...'
        >>> Settings(steps=2)
        Traceback (most recent call last):
            ...
        ValueError: steps must be an int of at least 3, not 2
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
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {said(value)}")
        least = {"steps": 3, "width": 2, "seed": 0, "start_steps": 0, "start_batch": 0}
        for name in ("hidden", "layers", "batch", "iterations", "evaluate_every", *least):
            value, bound = getattr(self, name), least.get(name, 1)
            if not isinstance(value, int) or isinstance(value, bool) or value < bound:
                raise ValueError(f"{name} must be an int of at least {bound}, not {said(value)}")
        for name in ("rate", "clip"):
            if not _real(value := getattr(self, name)) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above zero, not {said(value)}")
        if not _real(self.forget_bias) or not math.isfinite(self.forget_bias):
            raise ValueError(f"forget_bias must be a finite number, not {said(self.forget_bias)}")
        if not _real(self.label_smoothing) or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be at least 0 and below 1, not {said(self.label_smoothing)}"
            )
        if self.start_steps and not 3 <= self.start_steps <= self.steps:
            raise ValueError(
                f"start_steps must be 0 or from 3 to {self.steps}, not {self.start_steps}"
            )
        if self.start_batch and (not self.start_steps or self.start_batch < self.batch):
            raise ValueError(
                f"start_batch needs start_steps and must be at least {self.batch}, not "
                f"{self.start_batch}"
            )

    def batch_at(self, steps: int) -> int:
        """Return the number of sequences in a minibatch of sequences of ``steps`` steps."""
        return min(self.start_batch or self.batch, self.batch * self.steps // steps)

    def name(self) -> str:
        """Return a readable name for files of this run, different for different settings.

        ``iterations`` does not change the name: a run is the same at every limit. Settings at
        their defaults do not change it either, so that a run keeps its name when a new setting is
        added.
        """
        values = [(one, getattr(self, one.name)) for one in fields(self)]
        chosen = {one.name: value for one, value in values if value != one.default}
        chosen.pop("iterations", None)
        text = json.dumps(chosen, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{self.model}-T{self.steps}-seed{self.seed}-{digest}"


class Classifier(nn.Module):
    """Recurrent net with a linear read-out of its last output: one logit per sequence.

    Args:
        settings: the settings of the run
        device: the device of the parameters

    Example:
        >>> import torch
        >>> from lrscan.tasks import problem_2b
        >>> from lrscan.train import Classifier, Settings
        >>> model = Classifier(Settings(hidden=4), torch.device("cpu"))
        >>> tokens, label = problem_2b(16, batch=5, seed=0)
        >>> model(tokens).shape
        torch.Size([5])
    """

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
        """Return the logits, (B,), of (T, B) tokens."""
        x: Tokens | Tensor = tokens
        if isinstance(self.net, nn.LSTM):  # it reads no tokens
            x = tokens.dense(self.net.input_size, self.read_out.weight.dtype)
        return self.read_out(self.net(x)[0][-1]).squeeze(-1)

    def reset_parameters(self, settings: Settings) -> None:
        """Draw all parameters again from torch's generator."""
        for layer, options in enumerate(_options(settings)):
            if isinstance(self.net, nn.LSTM):
                _reset_torch_lstm(self.net, layer, options)
            else:
                self.net.layers[layer].reset_parameters(**options)
        nn.init.xavier_uniform_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)


def _options(settings: Settings) -> list[dict[str, Any]]:
    """Return the options of each layer's ``reset_parameters``."""
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
    """Draw the parameters of a layer of torch's LSTM, which has another order of gates."""
    gates = ("input", "forget", "candidate", "output")
    weight_x, weight_h, bias, other = (
        getattr(net, f"{name}_l{layer}").data
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    reset_gates([weight_x, weight_h], bias, net.hidden_size, gates, gates, **options)
    other.zero_()
