"""Training: it learns, stops when it should, and resumes a killed run without any difference."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from projects import PYTHONPATH, make_project, wait_until

from lrscan.cli import commands
from lrscan.evidence import records
from lrscan.train import DIVERGED, LEARNED, NOT_LEARNED, PAUSED, Settings, evaluate, files, train
from lrscan.train import loop as loop_
from lrscan.train.loop import Iteration
from lrscan.train.settings import INITIALISATIONS, MODELS, Classifier
from lrscan.train.step import Step

HISTORY = Iteration._fields
SMALL = Settings(
    steps=12, width=8, hidden=8, layers=1, batch=4, iterations=40, until="never", rate=1e-2
)


def without_time(run):
    column = HISTORY.index("seconds")
    return torch.tensor([row[:column] + row[column + 1 :] for row in run.history])


def same(one, other):
    assert (
        without_time(one).equal(without_time(other))
        or torch.testing.assert_close(
            without_time(one), without_time(other), rtol=0, atol=0, equal_nan=True
        )
        is None
    )
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (one.status, one.paper_at, one.strict_at) == (
        other.status,
        other.paper_at,
        other.strict_at,
    )


def test_the_long_memory_task_is_learned():
    run = train(Settings(steps=64, hidden=32, iterations=400), device="cpu")
    assert run.status == LEARNED and run.strict_at == run.iteration
    share, (low, high) = evaluate(run.model, run.settings, 512, number=2**40)
    assert share > 0.97 and low <= share <= high
    column = HISTORY.index("accuracy")
    assert all(row[column] == 1 for row in run.history[-5:])


def test_an_early_symbol_is_learned_at_once_where_the_last_layer_writes_early():
    run = train(Settings(steps=512, hidden=32, initialisation="early", iterations=100))
    assert run.status == LEARNED and run.strict_at <= 60


def test_lengths_that_double_lead_to_long_ones():
    settings = Settings(
        steps=2048, start_steps=64, hidden=32, initialisation="graded", rate=4e-3, iterations=600
    )
    run = train(settings, device="cpu")
    assert run.status == LEARNED
    column = HISTORY.index("steps")
    lengths = list(dict.fromkeys(row[column] for row in run.history))
    assert lengths == [64, 128, 256, 512, 1024, 2048]


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
def test_every_model_starts_alike(initialisation):
    settings = replace(SMALL, steps=100, hidden=2048, layers=2, initialisation=initialisation)
    ours, torchs = (
        Classifier(replace(settings, model=model), torch.device("cpu"))
        for model in ("GILRLSTM", "LSTM")
    )
    for k, layer in enumerate(ours.net.layers):
        x, bias = (
            dict(zip(layer.x_gates, p.chunk(4), strict=True)) for p in (layer.weight_x, layer.bias)
        )
        order = ("input", "forget", "candidate", "output")
        for name, one, other in zip(
            order,
            getattr(torchs.net, f"weight_ih_l{k}").chunk(4),
            getattr(torchs.net, f"bias_ih_l{k}").chunk(4),
            strict=True,
        ):
            for mine, theirs in ((x[name], one), (bias[name], other)):
                for figure in (torch.mean, torch.std):
                    assert abs(figure(mine) - figure(theirs)) < 0.1 * (1e-3 + theirs.std()), name
        assert not getattr(torchs.net, f"bias_hh_l{k}").any()
    for model in MODELS:
        Classifier(replace(settings, model=model, hidden=8), torch.device("cpu"))


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_gives_the_same_run_and_another_seed_another(model):
    settings = replace(SMALL, model=model, iterations=5)
    one = train(settings, device="cpu")
    torch.rand(3)
    same(one, train(settings, device="cpu"))
    other = train(replace(settings, seed=1), device="cpu")
    losses = [[row[HISTORY.index("loss")] for row in run.history] for run in (one, other)]
    assert losses[0] != losses[1]


def test_a_run_in_pieces_is_the_run_in_one_go(tmp_path):
    whole = train(SMALL, device="cpu")
    while (part := train(SMALL, device="cpu", folder=tmp_path, seconds=1e-9)).status == PAUSED:
        assert part.iteration == part.resumed + 1
    same(whole, part)
    again = train(SMALL, device="cpu", folder=tmp_path)  # it is finished, so nothing happens
    assert again.iteration == 40 and again.resumed == part.resumed + 1


def test_a_run_killed_at_any_moment_is_the_run_in_one_go(tmp_path):
    script = (
        "from dataclasses import fields, replace; from pathlib import Path\n"
        "from test_train import SMALL; from lrscan.train import train\n"
        "train(replace(SMALL, iterations=1_000_000), device='cpu', folder=Path('.'), "
        "checkpoint_every_s=0)\n"
    )
    tests = os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([PYTHONPATH, tests])}
    for number in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
        for _ in range(3):  # each new checkpoint means at least one iteration, on any machine
            wait_until(partial(changed, tmp_path, checkpoints(tmp_path), process))
        time.sleep(0.003 * number)  # during an iteration, or between two
        process.send_signal(signal.SIGKILL)
        process.wait()
    settings = replace(SMALL, iterations=1_000_000)
    kept = torch.load(next(tmp_path.glob("*.pt")), weights_only=True)
    reached = len(kept["history"])
    assert reached >= 9 and kept["resumed"] == 2
    # Continue for ten iterations, and train as many in one go.
    on, whole = (_until(reached + 10, settings, folder) for folder in (tmp_path, None))
    same(on, whole)


def changed(folder, seen, process):
    assert process.poll() is None
    return checkpoints(folder) != seen


def checkpoints(folder):
    """Return the time at which each checkpoint was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.pt")}


def _until(iteration, settings, folder):
    class Enough(Exception):
        pass

    def stop(run):
        kept.append(run)
        if run.iteration >= iteration:
            raise Enough

    kept = []
    with pytest.raises(Enough):
        train(settings, device="cpu", folder=folder, on_iteration=stop)
    return kept[-1]


def test_a_damaged_checkpoint_or_one_of_other_settings_is_refused(tmp_path):
    path = tmp_path / f"{SMALL.name()}.pt"
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        train(SMALL, device="cpu", folder=tmp_path)
    path.unlink()
    other = replace(SMALL, seed=9)
    train(other, device="cpu", folder=tmp_path)
    (tmp_path / f"{other.name()}.pt").rename(path)
    with pytest.raises(ValueError, match="other settings"):
        train(SMALL, device="cpu", folder=tmp_path)
    assert SMALL.name() != other.name() != replace(other, rate=2e-2).name()


def test_a_run_and_its_checkpoint_outlive_a_new_setting(tmp_path):
    whole = train(SMALL, device="cpu")
    train(SMALL, device="cpu", folder=tmp_path, seconds=1e-9)
    path = tmp_path / f"{SMALL.name()}.pt"
    content = torch.load(path, weights_only=True)
    del content["settings"]["label_smoothing"]  # as if written before this setting existed
    torch.save(content, path)
    same(whole, train(SMALL, device="cpu", folder=tmp_path))
    names = {replace(SMALL, label_smoothing=share).name() for share in (0.0, 0.1, 0.2)}
    assert len(names) == 3 and SMALL.name() in names


def test_smoothed_labels_are_those_of_cross_entropy():
    settings = replace(SMALL, label_smoothing=0.3)
    model = Classifier(settings, torch.device("cpu"))
    tokens, label = loop_._minibatch(settings, settings.steps, 4, 0, False, "cpu")
    logit = model(tokens)
    both = torch.stack([torch.zeros_like(logit), logit], dim=1)
    wanted = torch.nn.functional.cross_entropy(both, label.long(), label_smoothing=0.3)
    loss, _, _ = Step(settings, model, False)(tokens, label)
    assert loss == pytest.approx(wanted.item(), rel=1e-6)


def test_a_loss_that_is_not_finite_stops_a_run_at_once():
    def spoil(run):
        if run.iteration == 7:
            next(run.model.parameters()).data.fill_(math.nan)

    run = train(SMALL, device="cpu", on_iteration=spoil)
    assert run.status == DIVERGED and run.iteration == 8
    assert math.isnan(run.history[-1][HISTORY.index("loss")])


def test_the_papers_criterion_is_five_minibatches_in_a_row(monkeypatch):
    answers = iter([1.0, 1.0, 1.0, 1.0, 0.5, *[1.0] * 35])
    monkeypatch.setattr(Step, "__call__", lambda *_: (0.1, next(answers), 1.0))
    shares = iter([0.5, 0.98, 0.995])
    monkeypatch.setattr(loop_, "evaluate", lambda *_, **__: (next(shares), (0.0, 1.0)))
    run = train(replace(SMALL, until="strict", evaluate_every=10), device="cpu")
    assert (run.paper_at, run.strict_at, run.status) == (10, 30, LEARNED)
    held_out = [row[0] for row in run.history if not math.isnan(row[HISTORY.index("held_out")])]
    assert held_out == [10, 20, 30]


def test_a_length_doubles_after_five_minibatches_in_a_row(monkeypatch):
    answers = iter([*[1.0] * 4, 0.5, *[1.0] * 40])
    monkeypatch.setattr(Step, "__call__", lambda *_: (0.1, next(answers), 1.0))
    monkeypatch.setattr(loop_, "evaluate", lambda *_, **__: (1.0, (0.0, 1.0)))
    run = train(replace(SMALL, steps=20, start_steps=6, until="strict"), device="cpu")
    steps = [row[HISTORY.index("steps")] for row in run.history]
    assert steps == [6] * 10 + [12] * 5 + [20] * 5
    assert (run.paper_at, run.strict_at, run.status) == (20, 20, LEARNED)


def test_a_minibatch_never_holds_more_steps_than_the_last_one():
    settings = Settings(steps=1 << 20, batch=1, start_steps=128, start_batch=8)
    assert [settings.batch_at(1 << k) for k in (7, 17, 18, 19, 20)] == [8, 8, 4, 2, 1]
    assert {Settings(steps=1000, start_steps=100).batch_at(s) for s in (100, 800, 1000)} == {8}


def test_a_curriculum_in_pieces_is_the_one_in_one_go(tmp_path):
    settings = replace(SMALL, steps=12, start_steps=3, distractors="apart", iterations=60)
    whole = train(settings, device="cpu")
    assert len({row[HISTORY.index("steps")] for row in whole.history}) > 1
    while (part := train(settings, device="cpu", folder=tmp_path, seconds=1e-9)).status == PAUSED:
        pass
    same(whole, part)


def test_a_run_that_gave_up_continues_with_more_iterations(tmp_path):
    whole = train(replace(SMALL, until="strict", steps=40), device="cpu")
    parts = [
        train(replace(SMALL, until="strict", steps=40, iterations=n), device="cpu", folder=tmp_path)
        for n in (3, 5, 40, 4)
    ]
    assert [(run.status, run.iteration) for run in parts[:2]] == [(NOT_LEARNED, n) for n in (3, 5)]
    for run in parts[2:]:  # a lower limit removes no iterations
        same(whole, run)


def test_a_run_beyond_the_limit_is_not_trained_further(tmp_path):
    """It is paused under one limit, and resumed under a lower one."""
    given = {"device": "cpu", "folder": tmp_path}
    settings = replace(SMALL, until="strict", steps=40, iterations=50)
    part = train(settings, **given, seconds=0.0)
    while part.iteration < 9:
        part = train(settings, **given, seconds=0.0)
    ended = train(replace(settings, iterations=5), **given)
    assert (ended.status, ended.iteration) == (NOT_LEARNED, 9)
    assert train(settings, **given, seconds=0.0).iteration == 10


def test_giving_up_is_not_learning():
    run = train(replace(SMALL, iterations=3, until="strict"), device="cpu")
    assert run.status == NOT_LEARNED and run.iteration == 3 and run.strict_at is None


def test_a_warm_up_leaves_no_trace():
    torch.manual_seed(0)
    model = Classifier(SMALL, torch.device("cpu"))
    step = Step(SMALL, model, False)
    tokens, label = loop_._minibatch(SMALL, SMALL.steps, 4, 0, False, "cpu")
    before = [p.detach().clone() for p in model.parameters()]
    step.dry_run(tokens, label, 2)
    assert all(map(torch.equal, before, model.parameters()))
    results = [step(tokens, label) for _ in range(3)]
    torch.manual_seed(0)
    fresh = Step(SMALL, Classifier(SMALL, torch.device("cpu")), False)
    assert results == [fresh(tokens, label) for _ in range(3)]
    step.dry_run(tokens, label, 2)
    assert step(tokens, label) == fresh(tokens, label)


def test_the_variable_for_deterministic_cublas_is_set_at_import():
    """Torch reads the variable once, at a process's first product on a GPU."""
    code = "import os, lrscan.experiments.long_memory; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"PYTHONPATH": PYTHONPATH},
    )
    assert done.stdout.strip() == ":4096:8"


@pytest.mark.parametrize("saved_with_graph", [True, False])
def test_torch_lets_the_optimizer_be_captured(monkeypatch, saved_with_graph):
    tokens, label = loop_._minibatch(SMALL, SMALL.steps, 4, 0, False, "cpu")
    step, other = (
        Step(SMALL, Classifier(SMALL, torch.device("cpu")), graph)
        for graph in (True, saved_with_graph)
    )
    for one in (step, other):
        one.dry_run(tokens, label, 1)
    step.load(other.optimizer.state_dict())
    # As in a capture on a GPU, where torch refuses steps that keep their count on the host.
    capturing = SimpleNamespace(is_capturing=lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda: capturing)
    assert all(map(math.isfinite, step._step(tokens, label).tolist()))


def test_the_interval_is_that_of_wilson(monkeypatch):
    monkeypatch.setattr(Classifier, "forward", lambda self, tokens: tokens.sign[0].float())
    model = Classifier(SMALL, torch.device("cpu"))
    share, (low, high) = evaluate(model, SMALL, 256)
    assert share == high == 1.0 and low == pytest.approx(256 / (256 + 1.959964**2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "GRU"}, "model must be one of GILRLSTM, .* not 'GRU'"),
        ({"steps": 2}, "steps .* at least 3, not 2"),
        ({"rate": 0.0}, "rate .* not 0.0"),
        ({"batch": 1.5}, "batch .* not 1.5"),
        ({"label_smoothing": 1.0}, "label_smoothing .* below 1, not 1.0"),
        ({"until": "bored"}, "not 'bored'"),
        ({"algorithm": "fast"}, "not 'fast'"),
        ({"start_steps": 2}, "start_steps must be 0 or from 3 to 256, not 2"),
        ({"start_steps": 300}, "start_steps must be 0 or from 3 to 256, not 300"),
        ({"start_steps": 10, "start_batch": 4}, "start_batch .* at least 8, not 4"),
        ({"start_batch": 16}, "start_batch needs start_steps .* not 16"),
    ],
)
def test_wrong_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**given)


def test_a_graph_needs_a_gpu():
    with pytest.raises(ValueError, match="needs a GPU, not cpu"):
        train(SMALL, device="cpu", graph=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def lrscan_(*arguments):
    sets = [
        f"--set={name}={getattr(SMALL, name)}"
        for name in ("steps", "width", "hidden", "layers", "batch", "rate")
    ]
    return CliRunner().invoke(commands.main, ["train", "--device", "cpu", *sets, *arguments])


def test_records_gather_seeds_and_a_run_replaces_itself(project):
    done = lrscan_("--set", "iterations=6", "--set", "until=never", "--seed", "0", "--seed", "1")
    assert done.exit_code == 1 and "not learned after 6 iterations" in done.output, done.output
    lrscan_("--set", "iterations=6", "--set", "until=never", "--seed", "1", "--seed", "2")
    path = next((project / "build" / "records").glob("*/problem_2b.csv"))
    written = records.read("problem_2b", path.parent.name, directory=path.parents[1])
    assert written.table.groupby("seed").size().to_dict() == {0: 6, 1: 6, 2: 6}
    assert written.table["iteration"].tolist() == [1, 2, 3, 4, 5, 6] * 3
    outcomes = [one["outcome"] for one in written.provenance["measurements"]]
    assert [one["resumed"] for one in outcomes] == [0, 1, 0]
    assert all(one["status"] == "not learned" and one["sequences"] == 1024 for one in outcomes)


def test_a_paused_run_is_reported_and_continues(project):
    paused = lrscan_("--set", "iterations=1000000", "--set", "until=never", "--minutes", "0.001")
    assert paused.exit_code == 75 and "paused after" in paused.output, paused.output
    again = lrscan_("--set", "iterations=1000000", "--set", "until=never", "--minutes", "0.001")
    first, second = (int(result.output.split("after ")[1].split()[0]) for result in (paused, again))
    assert second > first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "step=3"], "'step=3' sets none of: model, steps"),
        (["--set", "iterations=many"], "iterations is of type int, not 'many'"),
        (["--set", "model=GRU"], "not 'GRU'"),
        (["--device", "tpu"], "'tpu'"),
        (["--name", "../x"], "'../x'"),
        (["--record", "--out", "x"], "give one"),
        (["--graph"], "needs a GPU"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(project, arguments, message):
    result = lrscan_(*arguments)
    assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output
    assert not (project / "build").exists()


def test_a_diverged_run_leaves_its_finite_rows(project):
    run = train(
        SMALL,
        device="cpu",
        on_iteration=lambda run: (
            run.iteration == 3 and next(run.model.parameters()).data.fill_(math.nan)
        ),
    )
    written = files.write(run, "spoiled", "cpu")
    assert len(written.table) == 3
    assert written.provenance["measurements"][0]["outcome"]["status"] == DIVERGED


def test_an_evaluation_stops_once_its_share_is_out_of_reach():
    calls = []

    def model(tokens):
        calls.append(tokens.index.shape[1])
        return -tokens.sign[0].float()  # always the other class

    settings = Settings(steps=2**16, batch=8)
    assert evaluate(model, settings, 32)[0] == 0.0 and sum(calls) == 32
    calls.clear()
    share, (low, high) = evaluate(model, settings, 32, enough=0.7)
    assert share == 0.0 and sum(calls) == 16 and high < 0.7
    assert evaluate(lambda t: t.sign[0].float(), settings, 32, enough=0.7)[0] == 1.0


@pytest.mark.parametrize("setting", [f.name for f in fields(Settings)])
@pytest.mark.parametrize("thing", [torch.arange(9999), list(range(9999))], ids=["tensor", "list"])
def test_a_wrong_setting_is_named_and_what_it_holds_is_not_printed(setting, thing):
    with pytest.raises((TypeError, ValueError), match=setting) as refused:
        Settings(**{setting: thing})
    assert len(str(refused.value)) < 200
