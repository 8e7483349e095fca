"""Problem 2b: the form of its sequences, which depend only on the seed and their number."""

import pytest
import torch

from lrscan.tasks import problem_2b


def test_a_sequence_is_a_signed_class_vector_and_then_one_hot_vectors():
    tokens, label = problem_2b(50, 400, seed=0, width=16)
    assert tokens.index.shape == tokens.sign.shape == (50, 400) and label.shape == (400,)
    assert tokens.index.dtype == torch.int64 and tokens.sign.dtype == torch.int8
    assert (tokens.index[0] == 0).all() and (tokens.sign[1:] == 1).all()
    assert torch.equal(tokens.sign[0].float(), 2 * label - 1)
    assert 0.4 < label.mean() < 0.6


@pytest.mark.parametrize(("distractors", "first"), [("any", 0), ("apart", 1)])
def test_later_elements_are_uniform_over_their_range(distractors, first):
    tokens, _ = problem_2b(2000, 8, seed=1, width=16, distractors=distractors)
    counts = torch.bincount(tokens.index[1:].flatten(), minlength=16)
    assert (counts[:first] == 0).all()
    expected = 1999 * 8 / (16 - first)
    assert ((counts[first:] - expected).abs() < 6 * expected**0.5).all()


def test_a_minibatch_depends_only_on_its_seed_and_number():
    def draw(**given):
        tokens, label = problem_2b(64, 8, **given)
        return torch.cat([tokens.index.flatten(), label.long()])

    kept = draw(seed=3, number=7)
    torch.rand(5)
    assert torch.equal(kept, draw(seed=3, number=7))
    for other in ({"seed": 4, "number": 7}, {"seed": 3, "number": 8}):
        assert not torch.equal(kept, draw(**other))
    assert not torch.equal(kept, draw(seed=3, number=7, held_out=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps must be an int of at least 1, not 0"),
        ({"batch": 2.0}, "batch .* not 2.0"),
        ({"width": 1}, "width .* at least 2, not 1"),
        ({"seed": -1}, "seed .* not -1"),
        ({"number": True}, "number .* not True"),
        ({"distractors": "none"}, "'any', 'apart', not 'none'"),
    ],
)
def test_wrong_arguments_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        problem_2b(**({"steps": 4, "batch": 2, "seed": 0} | given))
