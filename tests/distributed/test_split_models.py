"""Models on chunks of time over ranks: outputs, states, gradients, training, and a mesh."""

import threading
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from every_model import LINEAR
from ranks import Ranks
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from lrscan import distributed
from lrscan import nn as models
from lrscan.distributed import sequence_parallel, summed
from lrscan.tasks import problem_2b
from lrscan.train.settings import Classifier, Settings

T, B, M, N = 13, 2, 3, 4
MODELS = {name: {"window": 4} if name == "QRNN" else {} for name in LINEAR}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    ranks = Ranks(4, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()


def model_of(name, **options):
    torch.manual_seed(0)
    options = MODELS[name] | options
    model = getattr(models, name)(M, N, 2, dtype=torch.float64, **options)
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(T, B, M, generator=draw, dtype=torch.float64)
    width = 2 * (1 + model.bidirectional)
    state = tuple(
        torch.randn(width, B, w, generator=draw, dtype=torch.float64) for w in model.state_sizes
    )
    return model, x, state


def loss_of(output, state):
    """Return a loss that depends on every output and every state."""
    return output.square().sum() + sum(part.sin().sum() for part in state)


def on_a_rank(group, name, options, lengths):
    model, x, state = model_of(name, **options)
    chunk = x.split(lengths)[group.rank()].clone().requires_grad_()
    with sequence_parallel(group):
        output, end = model(chunk, state)
    (output.square().sum() + sum(p.sin().sum() for p in end) / group.size()).backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad, group=group)
    return (
        output.detach(),
        [p.detach() for p in end],
        chunk.grad,
        [p.grad for p in model.parameters()],
    )


@pytest.mark.parametrize("lengths", [(6, 7), (5, 1, 7), (0, 2, 0, 11)], ids=str)
@pytest.mark.parametrize("two", [False, True], ids=["", "bidirectional"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_on_chunks_agrees_with_the_model_on_the_whole_sequence(ranks, name, two, lengths):
    options = {"bidirectional": two}
    results = ranks.results(on_a_rank, name, options, lengths, size=len(lengths))
    model, x, state = model_of(name, **options)
    output, end = model(x.requires_grad_(), state)
    loss_of(output, end).backward()
    close = {"rtol": 1e-10, "atol": 1e-12}
    outputs, ends, grads, of_parameters = zip(*results, strict=True)
    torch.testing.assert_close(torch.cat(outputs), output.detach(), **close)
    torch.testing.assert_close(torch.cat(grads), x.grad, **close)
    for own in ends:
        torch.testing.assert_close(own, [p.detach() for p in end], **close)
    for own in of_parameters:
        torch.testing.assert_close(own, [p.grad for p in model.parameters()], **close)


SETTINGS = Settings(model="GILRLSTM", steps=40, hidden=8, layers=2, batch=4, width=8)
CUT = (15, 25)


def losses_of(loss_and_share, classifier, after=lambda: None):
    """Return the losses of five steps of Adam. ``after`` runs between backward and the step."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.01)
    found = []
    for number in range(5):
        tokens, label = problem_2b(
            SETTINGS.steps, SETTINGS.batch, seed=0, number=number, width=SETTINGS.width
        )
        optimizer.zero_grad()
        loss, share = loss_and_share(tokens, label)
        share.backward()
        after()
        optimizer.step()
        found.append(loss.item())
    return found


def classifier():
    torch.manual_seed(0)
    return Classifier(SETTINGS, torch.device("cpu")).double()


def loss_on_chunks(model, group, tokens, label):
    """Return the loss on the rank that holds the last step, and zero on the others."""
    chunk = tokens.map(lambda t: t.split(CUT)[group.rank()])
    with sequence_parallel(group):
        logit = model(chunk)
    last = group.rank() == group.size() - 1
    return F.binary_cross_entropy_with_logits(logit, label.double()) * last


def trained_on_a_rank(group):
    model = classifier()

    def added_up():
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad, group=group)

    def step(tokens, label):
        loss = loss_on_chunks(model, group, tokens, label)
        return loss, loss

    return losses_of(step, model, added_up)


def trained_on_a_mesh(group):
    """Train with half of a minibatch on ranks 0 and 1, half on 2 and 3; each pair splits time."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    row = group.rank() // 2
    model = summed(DistributedDataParallel(classifier(), process_group=group), pairs[row])

    def step(tokens, label):
        half = slice(2 * row, 2 * row + 2)
        loss = loss_on_chunks(model, pairs[row], tokens.map(lambda t: t[:, half]), label[half])
        return loss, loss

    return losses_of(step, model)


def trained_on_one():
    model = classifier()

    def step(tokens, label):
        loss = F.binary_cross_entropy_with_logits(model(tokens), label.double())
        return loss, loss

    return losses_of(step, model)


def test_training_on_two_ranks_gives_the_losses_of_one(ranks):
    first, last = ranks.results(trained_on_a_rank, size=2)
    assert first == [0.0] * 5
    assert last == pytest.approx(trained_on_one(), rel=1e-9)


def test_time_and_minibatch_split_over_a_mesh_give_the_losses_of_one(ranks):
    results = ranks.results(trained_on_a_mesh)
    mean = [sum(parts) / 2 for parts in zip(*results, strict=True)]
    assert mean == pytest.approx(trained_on_one(), rel=1e-9)


class Wrapped(torch.nn.Module):
    """Module that a user might write around the operator."""

    def __init__(self, group):
        super().__init__()
        self.group, self.decay = group, torch.nn.Parameter(torch.full((M,), 0.5).double())

    def forward(self, x):
        return distributed.linear_recurrence(self.decay.expand_as(x), x, group=self.group)


def gradients_on_a_rank(group, what, by_ddp, hook=None):
    """Return gradients of a sum over all steps, added by hand or by DistributedDataParallel."""
    model, x, _ = model_of("GILR") if what == "model" else (Wrapped(group), *model_of("GILR")[1:])
    chunk = x.split((6, 7))[group.rank()]
    call = model
    if by_ddp:
        call = DistributedDataParallel(model, process_group=group)
    if by_ddp == "summed":
        call = summed(call, group, hook, group if hook else None)
    with sequence_parallel(group):
        output = call(chunk)
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    if not by_ddp:
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad, group=group)
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("what", ["model", "operator"])
def test_data_parallel_adds_the_gradients_of_chunks_or_refuses(ranks, what):
    expected = ranks.results(gradients_on_a_rank, what, False, size=2)
    for hook in (None, bf16_compress_hook):
        found = ranks.results(gradients_on_a_rank, what, "summed", hook, size=2)
        close = {"rtol": 0.02, "atol": 0.02} if hook else {}
        torch.testing.assert_close(found, expected, **close)
    for failure in ranks.run(gradients_on_a_rank, what, "plain", size=2):
        assert failure.kind == "RuntimeError" and "lrscan.distributed.summed(" in failure.message
        assert "averages gradients over all its 2 ranks" in failure.message


def evaluated_on_a_rank(group):
    model, x, _ = model_of("GILR")
    with sequence_parallel(group), torch.no_grad():
        return DistributedDataParallel(model, process_group=group)(x)[0]


def test_without_gradients_nothing_is_refused(ranks):
    assert len(ranks.results(evaluated_on_a_rank, size=2)) == 2


def test_summed_takes_a_model_in_data_parallel():
    with pytest.raises(TypeError, match="not Linear"):
        summed(torch.nn.Linear(2, 2))


def checkpointed_on_a_rank(group):
    """Return gradients of a chunk without and with a checkpoint. Backward runs after the block."""
    model, x, state = model_of("GILRLSTM", bidirectional=True)
    chunk = x.split((6, 7))[group.rank()].clone().requires_grad_()

    def part(chunk):
        with sequence_parallel(group):
            return model(chunk, state)[0]

    outputs = part(chunk), checkpoint(part, chunk, use_reentrant=False)
    return [torch.autograd.grad(output.square().sum(), chunk)[0] for output in outputs]


def test_a_checkpoint_that_enters_sequence_parallel_is_split_in_backward_too(ranks):
    for plain, again in ranks.results(checkpointed_on_a_rank, size=2):
        assert torch.equal(plain, again)


def outside_on_a_rank(group):
    """Differentiate a whole evaluation before and in a block, and run a thread in the block."""
    torch.manual_seed(0)
    model, x = models.GILRLSTM(M, 32), torch.randn(T, B, M, requires_grad=True)

    def first_and_second():
        total = output.square().sum()
        (first,) = torch.autograd.grad(total, x, retain_graph=True, create_graph=True)
        return first, torch.autograd.grad(first.square().sum(), x, retain_graph=True)[0]

    output, seen = model(x)[0], []
    found = [*first_and_second()]
    with sequence_parallel(group):
        found += first_and_second()
        thread = threading.Thread(target=lambda: seen.append(model(x)[0]))
        thread.start()
        thread.join()
    return [part.detach() for part in (*found, output, *seen)]


def test_a_whole_evaluation_and_other_threads_are_not_split(ranks):
    for first, second, *within, output, seen in ranks.results(outside_on_a_rank, size=2):
        torch.testing.assert_close(within, [first, second], rtol=0, atol=0)
        assert torch.equal(output, seen)


def compiled_on_a_rank(group):
    """Return outputs of a compiled model before, in and after ``sequence_parallel``."""
    warnings.simplefilter("ignore")  # the compiler warns by itself
    model, x, _ = model_of("QRNN")
    compiled = torch.compile(model, backend="aot_eager")
    outputs = [compiled(x)[0]]
    with sequence_parallel(group):
        outputs.append(compiled(x.split((6, 7))[group.rank()])[0])
    return [output.detach() for output in (*outputs, compiled(x)[0])]


def test_a_compiled_model_obeys_sequence_parallel(ranks):
    (whole, first, after), (_, second, _) = ranks.results(compiled_on_a_rank, size=2)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(after, whole)


def serial_on_a_rank(group):
    with sequence_parallel(group):
        models.SerialLSTM(M, N)(torch.zeros(T, B, M))


def test_a_serial_lstm_refuses_to_be_split_over_time(ranks):
    for failure in ranks.run(serial_on_a_rank, size=2):
        assert failure.kind == "RuntimeError" and "a SerialLSTM cannot" in failure.message
