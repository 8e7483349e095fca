"""Training loop: it runs until the model has learned, or to a limit, and can be resumed.

With a curriculum (Elman 1993; Bengio et al. 2009) it starts with short sequences and moves on to
longer ones.
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

# In deterministic mode torch refuses matrix products on a GPU without this variable. It is read
# once per process, at the first product of any kind, so it must be set before.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

LEARNED, NOT_LEARNED, DIVERGED, PAUSED = "learned", "not learned", "diverged", "paused"
IN_A_ROW = 5  # the paper's criterion: consecutive minibatches without a mistake
_WARM_UP_STEPS = 1024  # enough for a step to compile all its kernels
# Steps x sequences per minibatch of an evaluation, or the minibatch of training if that is larger.
_EVALUATION_STEPS = 2**16
# The strict criterion: number of fresh sequences, and the share that must be right.
STRICT_SEQUENCES, STRICT_SHARE = 256, 0.99


class Iteration(NamedTuple):
    """Record of one iteration.

    Attributes:
        iteration: its number, from 1
        steps: length of its sequences; in a curriculum at first shorter than T
        seconds: time of this iteration and all before it
        loss: loss of its minibatch
        accuracy: accuracy on its minibatch
        gradient_norm: norm of its gradient, before clipping
        held_out: accuracy on fresh sequences; NaN if it was not evaluated
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
    """State of a training run.

    Attributes:
        settings: its settings
        model: the model
        status: "learned", "not learned", "diverged" or "paused"
        history: all iterations
        paper_at: the first iteration that ends five consecutive minibatches of T steps without a
            mistake, or None
        strict_at: the first iteration after which 99% of 256 fresh sequences were classified
            correctly, or None
        resumed: how often it was resumed from a checkpoint

    Example:
        >>> from lrscan.train import Settings, train
        >>> settings = Settings(steps=8, hidden=4, layers=1, iterations=3, until="never")
        >>> run = train(settings, device="cpu")
        >>> run.status, run.iteration, run.paper_at, run.resumed
        ('not learned', 3, None, 0)
        >>> [row.iteration for row in run.history]
        [1, 2, 3]
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
        """Number of iterations done."""
        return len(self.history)

    @property
    def steps(self) -> int:
        """Length of the sequences in the next iteration."""
        if not self.history:
            return self.settings.start_steps or self.settings.steps
        latest = self.history[-1].steps
        return min(2 * latest, self.settings.steps) if self.mastered else latest

    @property
    def mastered(self) -> bool:
        """True if the latest five minibatches had the same length and no mistake."""
        latest = self.history[-IN_A_ROW:]
        return len(latest) == IN_A_ROW and all(
            row.accuracy == 1.0 and row.steps == latest[-1].steps for row in latest
        )

    @property
    def reached(self) -> int | None:
        """The iteration that met the criterion ``settings.until``, or None."""
        met = {"strict": self.strict_at, "paper": self.paper_at, "never": None}
        return met[self.settings.until]

    @property
    def seconds(self) -> float:
        """Time of all iterations, without compilation, evaluations and checkpoints."""
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
    """Train on problem 2b, from the latest checkpoint of the same run if there is one.

    A checkpoint contains everything that the next iteration depends on, and a minibatch depends
    only on its number. So a run that was killed and resumed has the same parameters and losses, bit
    for bit, as an uninterrupted one. A checkpoint is written to a temporary file, which is then
    renamed.

    Args:
        settings: settings of the run
        device: "auto", "cpu" or "cuda"
        folder: folder for checkpoints, one file per run; None writes none
        seconds: pause after this time, at the end of an iteration; None for no limit
        graph: replay steps as a CUDA graph; None does so on a GPU
        checkpoint_every_s: seconds between two checkpoints
        on_iteration: function called with the run after each iteration

    Returns:
        The run. If its status is "diverged", a loss or a gradient was not finite; training has
        stopped, and the parameters are those before or after that step.

    Raises:
        ValueError: there is no such device, a graph was requested without a GPU, or the checkpoint
            cannot be read or belongs to other settings

    Example:
        >>> from pathlib import Path
        >>> from lrscan.train import Settings, train
        >>> settings = Settings(steps=8, hidden=4, layers=1, iterations=3)
        >>> paused = train(settings, device="cpu", folder=Path("checkpoints"), seconds=0)
        >>> run = train(settings, device="cpu", folder=Path("checkpoints"))
        >>> paused.status, paused.iteration, run.status, run.iteration, run.resumed
        ('paused', 1, 'not learned', 3, 1)
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
    """Compile the kernels of a step, so that the time of the first one excludes compilation.

    The same kernels run at every length.
    """
    settings, steps = run.settings, min(run.settings.steps, _WARM_UP_STEPS)
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
    # Evaluate fresh sequences only while minibatches have no mistakes: an evaluation costs as much
    # as ten steps. It depends only on the history, so a resumed run has the same evaluations.
    if met and _since_evaluation(run) >= settings.evaluate_every:
        held_out, _ = evaluate(
            run.model,
            settings,
            STRICT_SEQUENCES,
            number=number * STRICT_SEQUENCES,
            enough=STRICT_SHARE,
            device=device,
        )
        if held_out >= STRICT_SHARE and run.strict_at is None:
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
    """Return the accuracy on fresh sequences, and its 95% confidence interval.

    Both refer to the sequences that were evaluated: all of them, or those up to the point where
    ``enough`` was out of reach.

    Args:
        model: the model of the run
        settings: the settings of the run
        sequences: number of sequences, drawn in minibatches from the held-out stream
        number: position in that stream to start from; positions that are far enough apart give
            different sequences
        enough: stop as soon as so many sequences were wrong that the accuracy must stay below this
        device: device of the model

    Returns:
        The accuracy, and the interval (low, high).

    Example:
        >>> from lrscan.train import Settings, evaluate, train
        >>> settings = Settings(steps=8, hidden=4, layers=1, iterations=3)
        >>> run = train(settings, device="cpu")
        >>> share, (low, high) = evaluate(run.model, settings, sequences=64)
        >>> 0 <= low <= share <= high <= 1
        True

    Source: the interval is that of Wilson 1927, which also holds near 0 and 1.
    """
    right = seen = 0
    most = max(settings.batch, _EVALUATION_STEPS // settings.steps)
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
        raise ValueError(
            f"{workspace.relative(path)} is not a readable checkpoint, delete it to start again: "
            f"{error}"
        ) from error
    # A setting that was added later had its default value, and the limit may have changed.
    trained = asdict(Settings()) | content.get("settings", {})
    if trained | {"iterations": run.settings.iterations} != asdict(run.settings):
        raise ValueError(
            f"{workspace.relative(path)} is a checkpoint of other settings: delete it, or use "
            f"another folder"
        )
    run.model.load_state_dict(content["model"])
    step.load(content["optimizer"])
    run.history = [
        Iteration(int(number), int(steps), *rest)
        for number, steps, *rest in content["history"].tolist()
    ]
    run.status, run.paper_at = content["status"], content["paper_at"]
    run.strict_at, run.resumed = content["strict_at"], content["resumed"] + 1
    if run.status != DIVERGED and run.reached is None:  # continue up to the present limit
        run.status = PAUSED
        _end_at_the_limit(run)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic operations and full float32 products, and restore torch afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # type checkers do not know its setting
    filled = memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        # Torch would fill all new memory with NaN, but nothing here reads it before writing.
        memory.fill_uninitialized_memory = False
        with full_float32():
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = filled
