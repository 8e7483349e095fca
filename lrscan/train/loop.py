"""The training loop: until it has learned, gives up, or is told to stop; and on from there.

With a curriculum (Elman 1993; Bengio et al. 2009) it goes from short sequences to long ones.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrscan.core.files import write_files
from lrscan.evidence import workspace
from lrscan.evidence.provenance import resolve_device
from lrscan.nn.inputs import Tokens
from lrscan.tasks import problem_2b
from lrscan.train.precision import full_float32
from lrscan.train.settings import Classifier, Settings
from lrscan.train.step import Step

# Without it torch refuses products on a GPU in deterministic mode. It looks once in a process, at
# the first product of any kind, so it is set before that.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

LEARNED, NOT_LEARNED, DIVERGED, PAUSED = "learned", "not learned", "diverged", "paused"
IN_A_ROW = 5  # minibatches without a mistake: the paper's criterion
_ENOUGH_STEPS = 1024  # for every kernel of a step to be compiled
_EVENTS = 2**16  # steps times sequences that are evaluated at once, where a minibatch has fewer
FRESH, ENOUGH = 256, 0.99  # sequences of the strict criterion, and the share to get right


class Iteration(NamedTuple):
    """What is kept of an iteration.

    iteration      its number, from 1
    steps          the length of its sequences, in a curriculum shorter than T at first
    seconds        of this one and all before
    loss, accuracy, gradient_norm   of its minibatch, the norm before clipping
    held_out       the accuracy on fresh sequences, NaN where there was no evaluation
    """

    iteration: int
    steps: int
    seconds: float
    loss: float
    accuracy: float
    gradient_norm: float
    held_out: float = math.nan


@dataclass
class Run:
    """A training run as far as it went.

    settings     what it is
    status       "learned", "not learned", "diverged" or "paused"
    history      every iteration
    paper_at     the iteration of the fifth minibatch of T steps in a row without a mistake, or None
    strict_at    the iteration after which 99% of 256 fresh sequences were right, or None
    resumed      how often it went on from a checkpoint
    model        the model
    """

    settings: Settings
    model: Classifier
    status: str = PAUSED
    history: list[Iteration] = field(default_factory=list)
    paper_at: int | None = None
    strict_at: int | None = None
    resumed: int = 0

    @property
    def iteration(self) -> int:
        """How many iterations it has done."""
        return len(self.history)

    @property
    def steps(self) -> int:
        """The length of the sequences of the next iteration."""
        if not self.history:
            return self.settings.start_steps or self.settings.steps
        latest = self.history[-1].steps
        return min(2 * latest, self.settings.steps) if self.mastered else latest

    @property
    def mastered(self) -> bool:
        """Whether the latest five minibatches were of one length, and without a mistake."""
        latest = self.history[-IN_A_ROW:]
        return len(latest) == IN_A_ROW and all(
            row.accuracy == 1.0 and row.steps == latest[-1].steps for row in latest
        )

    @property
    def reached(self) -> int | None:
        """The iteration after which it met the criterion that ends it, or None."""
        met = {"strict": self.strict_at, "paper": self.paper_at, "never": None}
        return met[self.settings.until]

    @property
    def seconds(self) -> float:
        """The time of all iterations, without compilation, evaluations and checkpoints."""
        return self.history[-1].seconds if self.history else 0.0


def train(
    settings: Settings,
    *,
    device: torch.device | str = "auto",
    folder: Path | None = None,
    seconds: float | None = None,
    graph: bool | None = None,
    checkpoint_every_s: float = 30.0,
    on_iteration: Callable[[Run], None] | None = None,
) -> Run:
    """Train on problem 2b, from the newest checkpoint of the same run if there is one.

    A checkpoint holds everything that the next iteration depends on, and minibatches depend on
    their number alone: so a run that was killed and resumed gives the same parameters and the
    same history, bit for bit, as one that was not. It is written aside and then renamed.

    Args:
        settings:           the run
        device:             "auto", "cpu" or "cuda"
        folder:             where checkpoints lie, one file a run; None: none are written
        seconds:            pause after so long, at the end of an iteration; None: never
        graph:              replay steps as a CUDA graph; None: on a GPU
        checkpoint_every_s: seconds between two checkpoints
        on_iteration:       called after each iteration

    Returns:
        The run. "diverged" means that a loss or a gradient was not finite: the parameters are
        those before that step or after it, and nothing is trained on.

    Raises:
        ValueError: no such device, a graph without a GPU, or a checkpoint of other settings
    """
    where = resolve_device(device)
    if graph and where.type != "cuda":
        raise ValueError(f"a CUDA graph needs a GPU, not {where}")
    graph = where.type == "cuda" if graph is None else graph
    path = None if folder is None else Path(folder) / f"{settings.name()}.pt"
    started = saved = time.perf_counter()
    with _deterministic():
        torch.manual_seed(settings.seed)
        run = Run(settings, Classifier(settings, where))
        step = Step(settings, run.model, graph)
        if path is not None and path.is_file():
            _load(path, run, step, where)
        if run.status == PAUSED and not graph:
            _compile(run, step, where)
        while run.status == PAUSED:
            _iterate(run, step, where)
            if on_iteration is not None:
                on_iteration(run)
            now = time.perf_counter()
            paused = seconds is not None and now - started >= seconds
            if path is not None and (
                paused or run.status != PAUSED or now - saved >= checkpoint_every_s
            ):
                _save(path, run, step)
                saved = now
            if paused:
                break
    return run


def _compile(run: Run, step: Step, device: torch.device) -> None:
    """Compile what a step runs, so that the first one is not timed with that.

    The same kernels run at any length.
    """
    settings, steps = run.settings, min(run.settings.steps, _ENOUGH_STEPS)
    step.prepare(*_minibatch(settings, steps, settings.batch_at(run.steps), 0, False, device))


def _iterate(run: Run, step: Step, device: torch.device) -> None:
    settings, number, steps = run.settings, run.iteration, run.steps
    tokens, label = _minibatch(settings, steps, settings.batch_at(steps), number, False, device)
    if step.graph:
        step.prepare(tokens, label)
    begun = time.perf_counter()
    loss, accuracy, norm = step(tokens, label)
    seconds = run.seconds + time.perf_counter() - begun
    run.history.append(Iteration(number + 1, steps, seconds, loss, accuracy, norm))
    if not math.isfinite(loss) or not math.isfinite(norm):
        run.status = DIVERGED
    met = run.mastered and steps == settings.steps
    if met and run.paper_at is None:
        run.paper_at = number + 1
    # Fresh sequences only where the minibatches give hope: an evaluation costs as much as ten
    # steps. When it is due depends on the history alone.
    if met and _since_evaluation(run) >= settings.evaluate_every:
        held_out, _ = evaluate(
            run.model, settings, FRESH, number=number * FRESH, enough=ENOUGH, device=device
        )
        if held_out >= ENOUGH and run.strict_at is None:
            run.strict_at = number + 1
        run.history[-1] = run.history[-1]._replace(held_out=held_out)
    if run.status == PAUSED and run.reached is not None:
        run.status = LEARNED
    _end_at_the_limit(run)


def _end_at_the_limit(run: Run) -> None:
    if run.status == PAUSED and run.iteration >= run.settings.iterations:
        run.status = LEARNED if run.strict_at is not None else NOT_LEARNED


def _since_evaluation(run: Run) -> int:
    for back, row in enumerate(reversed(run.history)):
        if not math.isnan(row.held_out):
            return back
    return run.iteration + run.settings.evaluate_every


def _minibatch(
    settings: Settings,
    steps: int,
    batch: int,
    number: int,
    held_out: bool,
    device: torch.device | str,
) -> tuple[Tokens, Tensor]:
    return problem_2b(
        steps,
        batch,
        seed=settings.seed,
        number=number,
        held_out=held_out,
        width=settings.width,
        distractors=settings.distractors,
        device=device,
    )


@torch.no_grad()
def evaluate(
    model: Classifier,
    settings: Settings,
    sequences: int,
    *,
    number: int = 0,
    enough: float = 0.0,
    device: torch.device | str = "cpu",
) -> tuple[float, tuple[float, float]]:
    """Accuracy on fresh sequences, and its 95% confidence interval.

    Both are of the sequences that were seen: all, or those until ``enough`` was out of reach.

    Args:
        model, settings: of the run
        sequences:       how many, drawn in minibatches from the held-out stream
        number:          where in that stream to begin; other numbers far apart give other ones
        enough:          the share that matters: stop once so many were wrong that it is missed
        device:          where the model is

    Source: the interval is that of Wilson 1927, which holds near 0 and 1 too.
    """
    right = seen = 0
    most = max(settings.batch, _EVENTS // settings.steps)
    for first in range(0, sequences, most):
        size = min(most, sequences - first)
        tokens, label = _minibatch(settings, settings.steps, size, number + first, True, device)
        right += int(((model(tokens) > 0) == (label > 0)).sum())
        seen += size
        if (right + sequences - seen) / sequences < enough:
            break
    share, z = right / seen, 1.959964
    centre = share + z * z / (2 * seen)
    half = z * math.sqrt(share * (1 - share) / seen + z * z / (4 * seen**2))
    scale = 1 + z * z / seen
    return share, (max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def _save(path: Path, run: Run, step: Step) -> None:
    content = {
        "settings": asdict(run.settings),
        "model": run.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "history": torch.tensor(run.history, dtype=torch.float64),
        "status": run.status,
        "paper_at": run.paper_at,
        "strict_at": run.strict_at,
        "resumed": run.resumed,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_files({path: buffer.getvalue()})


def _load(path: Path, run: Run, step: Step, device: torch.device) -> None:
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"{workspace.relative(path)} is no checkpoint: {error}") from error
    # A setting that came later was at its default, and the limit may be another one now.
    trained = asdict(Settings()) | content.get("settings", {})
    if trained | {"iterations": run.settings.iterations} != asdict(run.settings):
        raise ValueError(f"{workspace.relative(path)} is a checkpoint of other settings")
    run.model.load_state_dict(content["model"])
    step.load(content["optimizer"])
    run.history = [
        Iteration(int(number), int(steps), *rest)
        for number, steps, *rest in content["history"].tolist()
    ]
    run.status, run.paper_at = content["status"], content["paper_at"]
    run.strict_at, run.resumed = content["strict_at"], content["resumed"] + 1
    if run.status != DIVERGED and run.reached is None:  # this limit says whether it goes on
        run.status = PAUSED
        _end_at_the_limit(run)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic operations and full float32 products, and torch as it was afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its one setting is not known to type checkers
    filled = memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before it is written; torch would fill all of it with NaN.
        memory.fill_uninitialized_memory = False
        with full_float32():
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = filled
