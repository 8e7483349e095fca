"""The models in training: their time over length and minibatch, by algorithm, beside the LSTM."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import pandas
import torch
from torch import Tensor, nn

import lrscan.nn as models
from lrscan.bench.pieces import in_pieces
from lrscan.bench.registry import experiment
from lrscan.bench.timing import time_all
from lrscan.core import checks
from lrscan.evidence import provenance, records, workspace
from lrscan.evidence.records import Records
from lrscan.tasks import problem_2b
from lrscan.train.precision import full_float32

LAYERS = 2
# Table 2's models, by the paper's names.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "SRU": models.SRU,
    "QRNN(2)": lambda *sizes, **given: models.QRNN(*sizes, window=2, **given),
    "QRNN(10)": lambda *sizes, **given: models.QRNN(*sizes, window=10, **given),
    "GILR-LSTM": models.GILRLSTM,
}
HEATMAP_INPUTS, HEATMAP_OUTPUTS = 32, 2


@experiment("reproduce/03_training_speedup")
def training_speedup(
    *,
    device: str,
    seed: int,
    events: int,
    lengths: Iterable[int],
    widths: Iterable[int],
    inputs: Iterable[int],
    names: Iterable[str],
    runs: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of a training step by algorithm, the rest of the model left alone (Table 2).

    A step is forward and backward of two stacked layers on T steps of events / T sequences, in
    float32; the gradients of all weights are taken. Results of all algorithms are compared first.
    The longest sequences are measured first.

    Args:
        events:  b T, the same for every length
        lengths: T, divisors of events
        widths:  n, hidden units
        inputs:  m, the input size that goes with each width
        names:   of MODELS
        runs:    samples of each time
        resume, until: as for :func:`lrscan.bench.pieces.in_pieces`, a piece for each model, length
                 and width

    Raises:
        ValueError: a length that does not divide events, an unknown model, or lists that differ
            in length
    """
    where = provenance.resolve_device(device)
    pairs = dict(zip(widths, inputs, strict=True))
    parameters = {
        "events": events, "lengths": list(lengths), "widths": list(pairs),
        "inputs": list(pairs.values()), "names": list(names), "runs": runs,
    }  # fmt: skip
    for steps in parameters["lengths"]:
        if steps < 1 or events % steps:
            raise ValueError(f"events = {events} is no multiple of the length {steps}")
    if unknown := set(parameters["names"]) - set(MODELS):
        raise ValueError(f"a model is one of {', '.join(MODELS)}, not {min(unknown)!r}")
    cells = [
        {"model": name, "T": steps, "B": events // steps, "C": width}
        for steps, width, name in product(
            sorted(parameters["lengths"], reverse=True), pairs, parameters["names"]
        )
    ]

    def measure(number: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
        cell = cells[number]
        size = pairs[cell["C"]]
        torch.manual_seed(seed)
        x = torch.randn(cell["T"], cell["B"], size).to(where)
        net = MODELS[cell["model"]](size, cell["C"], LAYERS).to(where)
        candidates = {
            algorithm: _with_algorithm(net, algorithm, _last_square(net, x))
            for algorithm in checks.ALGORITHMS[where.type]
        }
        with full_float32():
            _agree(cell["model"], candidates)
            timings = time_all(candidates, where, runs)
        return _timed(timings, cell, seed, runs), {}

    origin = provenance.collect(where, parameters, seed)
    return in_pieces("training_speedup", cells, measure, origin, resume=resume, until=until)


@experiment("reproduce/04_lstm_throughput")
def lstm_throughput(
    *,
    device: str,
    seed: int,
    hidden: int,
    lengths: Iterable[int],
    minibatches: Iterable[int],
    most_events: int,
    lstm_lengths: Iterable[int],
    runs: int,
    resume: bool = False,
    until: float = math.inf,
) -> Records:
    """Time of a training step of GILR-LSTM and of torch's LSTM over length and minibatch.

    The paper's sizes otherwise: two layers, 32 inputs, a linear read-out of two classes from the
    last output, cross-entropy; forward and backward, float32 without TF32 on both sides. On a GPU
    torch's LSTM is cuDNN's. Small minibatches are measured first, and among them long sequences.

    Args:
        hidden:       n of both models
        lengths:      T of the GILR-LSTM
        minibatches:  b of both
        most_events:  cells with b T above it are left out
        lstm_lengths: T of the LSTM, whose throughput hardly depends on it
        runs:         samples of each time
        resume, until: as for :func:`lrscan.bench.pieces.in_pieces`, a piece for each model, length
                      and minibatch
    """
    where = provenance.resolve_device(device)
    plan = {"GILR-LSTM": list(lengths), "LSTM": list(lstm_lengths)}
    parameters = {
        "hidden": hidden, "lengths": plan["GILR-LSTM"], "minibatches": list(minibatches),
        "most_events": most_events, "lstm_lengths": plan["LSTM"], "runs": runs,
    }  # fmt: skip
    makers = {"GILR-LSTM": models.GILRLSTM, "LSTM": nn.LSTM}
    cells = [
        {"model": name, "T": steps, "B": batch, "C": hidden}
        for batch in sorted(parameters["minibatches"])
        for name, of_model in plan.items()
        for steps in sorted(of_model, reverse=True)
        if steps * batch <= most_events
    ]

    def measure(number: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
        cell = cells[number]
        name, steps, batch = cell["model"], cell["T"], cell["B"]
        torch.manual_seed(seed)
        net = makers[name](HEATMAP_INPUTS, hidden, LAYERS).to(where)
        read_out = nn.Linear(hidden, HEATMAP_OUTPUTS).to(where)
        x = torch.randn(steps, batch, HEATMAP_INPUTS).to(where)
        label = torch.randint(HEATMAP_OUTPUTS, (batch,)).to(where)
        with full_float32():
            step = _read_out(net, read_out, x, _classes(label))
            if not all(part.isfinite().all() for part in step()):
                raise RuntimeError(f"{name}: not finite at T = {steps}, b = {batch}")
            timings = time_all({_algorithm(name): step}, where, runs)
        return _timed(timings, cell, seed, runs), {}

    origin = provenance.collect(where, parameters, seed)
    return in_pieces("lstm_throughput", cells, measure, origin, resume=resume, until=until)


def throughputs(measured: Records) -> pandas.DataFrame:
    """Training throughput of every cell of the heat map, and how it compares.

    Returns:
        Columns: model, T, B, C, thousand_events_per_s, and ratio: over that of the LSTM at the
        same minibatch, at whichever of its lengths it is quickest.
    """
    table = measured.table[["model", "T", "B", "C", "median_ms"]].copy()
    table[["T", "B", "C"]] = table[["T", "B", "C"]].astype(int)
    table["thousand_events_per_s"] = table["T"] * table["B"] / table["median_ms"]
    best = table[table["model"] == "LSTM"].groupby("B")["thousand_events_per_s"].max()
    table["ratio"] = table["thousand_events_per_s"] / table["B"].map(best)
    return table.drop(columns="median_ms")


@experiment("reproduce/06_one_million_steps")
def step_time(
    *, device: str, seed: int, step_lengths: Iterable[int], hidden: int, runs: int = 5
) -> Records:
    """Time of a training step of GILR-LSTM on problem 2b over length, minibatch 1.

    Two layers, inputs of width 128 as indices, forward and backward. The reference is the time at
    the shortest length, times the ratio of the lengths: equal times mean a cost in proportion to T.
    """
    where = provenance.resolve_device(device)
    lengths = sorted(step_lengths)
    torch.manual_seed(seed)
    net = models.GILRLSTM(128, hidden, LAYERS, device=where)
    net.reset_parameters(**models.chrono(lengths[-1]))
    read_out = nn.Linear(hidden, 1).to(where)
    candidates = {}
    for steps in lengths:
        tokens, label = problem_2b(steps, 1, seed=seed, device=where)
        candidates[steps] = _read_out(net, read_out, tokens, _signs(label))
    with full_float32():
        timings = time_all(candidates, where, runs)
    rows = []
    for steps in lengths:
        (row,) = _timed(
            {"auto": timings[steps]}, {"model": "GILR-LSTM", "T": steps, "B": 1, "C": hidden},
            seed, runs,
        )  # fmt: skip
        rows.append(row | {"reference_ms": timings[lengths[0]][1] * steps / lengths[0]})
    parameters = {"step_lengths": lengths, "hidden": hidden, "runs": runs}
    return records.write("step_time", rows, provenance.collect(where, parameters, seed))


Step = Callable[[], tuple[Tensor, ...]]


def _gradients(loss: Tensor, *nets: nn.Module) -> tuple[Tensor, ...]:
    """The loss and its gradients by all weights."""
    weights = [weight for net in nets for weight in net.parameters()]
    return loss.detach(), *torch.autograd.grad(loss, weights)


def _last_square(net: nn.Module, x: Tensor) -> Step:
    return lambda: _gradients(net(x)[0].square().mean(), net)


def _read_out(
    net: nn.Module,
    read_out: nn.Module,
    x: Tensor | models.Tokens,
    loss: Callable[[Tensor], Tensor],
) -> Step:
    """A step whose loss is of a linear read-out of the last output."""
    return lambda: _gradients(loss(read_out(net(x)[0][-1])), net, read_out)


def _classes(label: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: nn.functional.cross_entropy(logits, label)


def _signs(label: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logit: nn.functional.binary_cross_entropy_with_logits(logit.squeeze(-1), label)


def _with_algorithm(net: Any, algorithm: str, step: Step) -> Step:
    def chosen() -> tuple[Tensor, ...]:
        net.algorithm = algorithm
        return step()

    return chosen


def _agree(name: str, candidates: Mapping[str, Step]) -> None:
    """Raise unless all algorithms give the same loss and gradients, within rounding."""
    results = {algorithm: step() for algorithm, step in candidates.items()}
    first, *others = results
    for algorithm in others:
        for expected, got in zip(results[first], results[algorithm], strict=True):
            if not (got - expected).abs().max() <= 1e-4 * expected.abs().max():
                raise RuntimeError(f"{name}: {algorithm} and {first} differ beyond rounding")


def _algorithm(model: str) -> str:
    return "torch" if model == "LSTM" else "auto"


def _timed(
    timings: Mapping[str, tuple[float, float, float]],
    identity: Mapping[str, Any],
    seed: int,
    runs: int,
) -> list[dict[str, Any]]:
    """Rows of a training step's times."""
    common = {"direction": "training", "dtype": "float32", "precision": "ieee", "layout": "TBC"}
    common |= {"seed": seed, "profile": workspace.profile(), "runs": runs, **identity}
    return [
        common | {"algorithm": algorithm, "q1_ms": q1, "median_ms": median, "q3_ms": q3}
        for algorithm, (q1, median, q3) in timings.items()
    ]
