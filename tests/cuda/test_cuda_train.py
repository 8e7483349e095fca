"""Models and training on a CUDA device, with the same requirements as test_cuda.py."""

from dataclasses import replace

import pytest
import torch
from every_model import LINEAR

from lrscan.train import LEARNED, Settings, evaluate, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SHORT = Settings(
    steps=48,
    start_steps=12,
    start_batch=16,
    hidden=32,
    width=16,
    batch=4,
    until="never",
    iterations=80,
    rate=1e-2,
    label_smoothing=0.1,
)


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_a_model_agrees_with_the_cpu(make):
    torch.manual_seed(0)
    model, x = make(24, 32, 2), torch.randn(70, 3, 24)
    dh = torch.randn(70, 3, 32)
    found = {}
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        output, _ = model(x.to(device))
        output.backward(dh.to(device))
        found[device] = [output, *(p.grad for p in model.parameters())]
    for got, expected in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(got.cpu(), expected.cpu(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("model", ["GILRLSTM", "LSTM"])
def test_a_captured_step_trains_as_an_ordinary_one(model):
    settings = replace(SHORT, model=model)
    captured, ordinary = (train(settings, device="cuda", graph=graph) for graph in (True, False))
    for got, expected in zip(captured.history, ordinary.history, strict=True):
        assert got.steps == expected.steps  # the lengths grew alike, so every length was captured
        assert got.loss == pytest.approx(expected.loss, rel=1e-3, abs=1e-5)
    assert captured.history[-1].steps > captured.history[0].steps


@pytest.mark.parametrize("model", ["GILRLSTM", "LSTM"])
def test_a_captured_run_continues_from_its_checkpoint(model, tmp_path):
    settings = replace(SHORT, model=model, iterations=12)
    whole = train(settings, device="cuda")
    part = train(settings, device="cuda", folder=tmp_path, seconds=0.0)
    while part.iteration < settings.iterations:
        part = train(settings, device="cuda", folder=tmp_path, seconds=0.0)
    assert [row.loss for row in part.history] == [row.loss for row in whole.history]


def test_it_learns():
    run = train(Settings(steps=64, hidden=32, iterations=400), device="cuda")
    assert run.status == LEARNED
    share, _ = evaluate(run.model, run.settings, 256, number=2**20, device="cuda")
    assert share > 0.95
