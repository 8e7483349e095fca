"""The CUDA kernels in Numba's simulator, compared with the same oracle as the CPU kernels.

The simulator's memory refuses every access outside the tensors of a launch, and every vector access
that is not aligned.
"""

import numpy as np
import pytest
import torch
from recurrences import KINDS, check, draw, spoiled

from lrscan.core import gradients, sweep
from lrscan.core.checks import ALGORITHMS
from lrscan.core.dtypes import DTYPES
from lrscan.core.reference import linear_recurrence_reference
from lrscan.cuda import blocked, launch
from lrscan.cuda.memory import simulator
from lrscan.cuda.single_pass import kernel as single_pass
from lrscan.cuda.single_pass import plan
from lrscan.cuda.single_pass.tiles import Layout, shape_of
from lrscan.cuda.steps import Extents, Variant

# NumPy warns when it computes the infinities and NaN that these tests are about.
not_finite = pytest.mark.filterwarnings(
    "ignore:overflow encountered", "ignore:invalid value encountered"
)
# (shape, dim): "blocked" cuts them into 1, 2 and 3 chunks, of which the last one is short.
LAYOUTS = [((1, 1), 0), ((2, 3), 0), ((150, 3), 0), ((2, 70, 2), 1), ((2, 2, 2, 65, 2), 3)]


@pytest.fixture(autouse=True)
def fresh_plans():
    """Clear the cache of prepared launches, which does not notice what a test changes."""
    sweep._prepared.cache_clear()


@pytest.fixture
def small_tiles(monkeypatch):
    """Use single-pass tiles of a few threads, in groups of three tiles."""
    monkeypatch.setattr(plan, "MOST_THREADS", 8)
    monkeypatch.setattr(plan, "FEWEST_THREADS", 4)
    monkeypatch.setattr(plan, "WARP", 1)
    monkeypatch.setattr(plan, "RADIX", 3)


def sweep_both(a, x, h0, dh, dim=0, reverse=False, algorithm="single_pass"):
    """Return h and the gradients of the kernels, after a check against the oracle."""
    options = (dim, reverse, algorithm)
    h = sweep.forward(a, x, h0, *options, backend="cuda")
    results = [h, *gradients.backward(a, h, h0, dh, x.shape, *options, backend="cuda")]
    check(results, a, x, h0, dh, dim, reverse)
    return results


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128], ids=str)
@pytest.mark.parametrize("algorithm", ["serial_paper", "serial", "blocked"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_agree_with_the_loop(kind, algorithm, dtype, reverse):
    for shape, dim in LAYOUTS:
        a, x, h0, dh = draw(shape, dtype, dim, kind=kind)
        for start in (h0, None):
            sweep_both(a, x, start, dh, dim, reverse, algorithm)


@not_finite
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", ["serial_paper", "serial", "blocked"])
def test_a_coefficient_of_zero_forgets_nan_and_infinity(algorithm, reverse):
    for seed, (shape, dim) in enumerate(LAYOUTS):
        inputs = spoiled(*draw(shape, torch.float32, dim, kind="lasts"), seed)
        sweep_both(*inputs, dim, reverse, algorithm)


# A single-pass tile of 8 threads has 64 elements of float32. The cases have one tile and several,
# in time and across columns, full and partial, in every order in memory.
TILED = {
    "one-step": ((1, 1), 0),
    "columns": ((19, 16), 0),
    "columns-unaligned": ((19, 9), 0),
    "columns-in-batches": ((2, 19, 8), 1),
    "many-columns-one-tile": ((2, 40), 0),
    "time": ((2, 144), 1),
    "time-unaligned": ((3, 75), 1),
    "one-column": ((301, 1), 0),
    "thin": ((75, 3), 0),
    "five-axes": ((2, 2, 2, 33, 3), 3),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("layout", TILED)
@pytest.mark.parametrize("kind", KINDS)
def test_single_pass_agrees_with_the_loop(kind, layout, reverse, small_tiles):
    shape, dim = TILED[layout]
    a, x, h0, dh = draw(shape, torch.float32, dim, kind=kind)
    sweep_both(a, x, h0, dh, dim, reverse)


@not_finite
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("layout", TILED)
def test_a_coefficient_of_zero_forgets_nan_and_infinity_in_a_single_pass(
    layout, reverse, small_tiles
):
    shape, dim = TILED[layout]
    for seed in range(2):
        inputs = spoiled(*draw(shape, torch.float32, dim, kind="lasts"), seed)
        sweep_both(*inputs, dim, reverse)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 3)], ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_no_steps_no_columns_and_a_single_step(algorithm, shape, small_tiles):
    a, x, h0, dh = draw(shape, torch.float32, 0)
    options = (0, False, algorithm)
    h = sweep.forward(a, x, h0, *options, backend="cuda")
    da, dx, dh0 = gradients.backward(a, h, h0, dh, shape, *options, backend="cuda")
    assert h.shape == da.shape == dx.shape == shape and dh0.shape == h0.shape
    if shape[0]:
        check([h, da, dx, dh0], a, x, h0, dh, 0, False)
    else:  # without steps, h does not depend on h0, so its gradient is zero
        assert not dh0.any()


@pytest.mark.parametrize("layout", ["columns", "time", "thin"])
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_single_pass_agrees_with_the_loop_in_every_dtype(kind, dtype, layout, small_tiles):
    shape, dim = TILED[layout]
    a, x, _, dh = draw(shape, dtype, dim, kind=kind)
    sweep_both(a, x, None, dh, dim, reverse=layout == "time")


@pytest.mark.parametrize("layout", ["columns", "time", "thin"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_takes_coefficients_in_single_precision(kind, layout, small_tiles):
    shape, dim = TILED[layout]
    a, _, h0, _ = draw(shape, torch.float32, dim, kind=kind)
    _, x, _, dh = draw(shape, torch.float16, dim)
    for algorithm in ALGORITHMS["cuda"]:
        h, da, dx, dh0 = sweep_both(a, x, h0, dh, dim, False, algorithm)
        assert (h.dtype, da.dtype, dx.dtype, dh0.dtype) == (x.dtype, a.dtype, x.dtype, h0.dtype)


BROADCAST = {
    "columns-per-step": ((19, 16), 0, lambda a: a[:, :1]),
    "columns-per-column": ((19, 16), 0, lambda a: a[:1]),
    "time-per-column": ((2, 144), 1, lambda a: a[:, :1]),
    "time-per-step": ((2, 144), 1, lambda a: a[:1]),
    "thin-constant": ((75, 3), 0, lambda a: a[:1, :1]),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("layout", BROADCAST)
@pytest.mark.parametrize("kind", KINDS)
def test_broadcast_coefficients_are_read_in_place(kind, layout, reverse, small_tiles):
    shape, dim, part = BROADCAST[layout]
    a, x, h0, dh = draw(shape, torch.float32, dim, kind=kind)
    sweep_both(part(a).expand(shape), x, h0, dh, dim, reverse)


def test_the_gradient_of_a_broadcast_coefficient_is_a_sum(small_tiles):
    shape, dim = TILED["columns"]
    a, x, h0, dh = draw(shape, torch.float64, dim)
    for short in (a[:1], a[:, :1]):
        h = sweep.forward(short, x, h0, dim, False, "single_pass", backend="cuda")
        options = (x.shape, dim, False, "single_pass")
        da, dx, _ = gradients.backward(short, h, h0, dh, *options, backend="cuda")
        whole = short.expand(shape).clone()
        each, same, _ = gradients.backward(whole, h, h0, dh, *options, backend="cuda")
        torch.testing.assert_close(da, each.sum_to_size(short.shape))
        torch.testing.assert_close(dx, same)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_with_gaps_and_in_different_orders(kind, small_tiles):
    a, x, h0, dh = draw((20, 32), torch.float32, 0, kind=kind)
    sweep_both(a[:, ::2], x[:, 1::2], h0[::2], dh[:, ::2])
    sweep_both(a.T.contiguous().T, x, h0, dh)
    a, x, h0, dh = draw((240, 2), torch.float32, 0, kind=kind)
    sweep_both(a[::3], x[::3], h0, dh[1::3])


def test_more_tiles_than_one_group_of_the_real_radix(small_tiles, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(plan, "MOST_THREADS", 2)
    monkeypatch.setattr(plan, "FEWEST_THREADS", 2)
    monkeypatch.setattr(plan, "WARP", 1)
    sweep_both(*draw((16 * (2 * plan.RADIX + 3), 1), torch.float32, 0, kind="lasts"))


def test_tiles_form_one_chain_where_columns_are_many(small_tiles, monkeypatch):
    monkeypatch.setattr(plan, "GROUP_VALUES", 1)
    for layout in ("columns", "time", "thin"):
        shape, dim = TILED[layout]
        sweep_both(*draw(shape, torch.float32, dim, kind="lasts"), dim)


def test_steps_may_exceed_the_range_of_32_bit_integers(small_tiles, monkeypatch):
    """Only the last tile runs, with the memory that it accesses and the state passed to it."""
    monkeypatch.setattr(plan, "GROUP_VALUES", 1)  # the tile then waits for one word, this state
    extents = Extents(2**33 + 21, 1, 1, 1)
    variant, layout = Variant(False, *["float32"] * 3), Layout("time", 1)
    chosen = plan.plan(variant, layout, extents, 1)
    begin = (chosen.tiles - 1) * chosen.chunks * shape_of(variant, layout)[0]
    a, x, _, _ = draw((extents.steps - begin,), torch.float32, 0)
    out = torch.full_like(x, float("nan"))
    workspace = torch.from_numpy(np.zeros(1 + chosen.tiles, np.int64))
    workspace[0], workspace[-2] = chosen.tiles - 1, simulator.words_of(np.float32(0.75))[0]
    rows = [[t.data_ptr() - 4 * begin, 4, 0, 0, 0] for t in (a, x, out)]
    rows = [*rows[:2], [0] * 5, rows[2], *[[0] * 5] * 3]
    sizing = (chosen.vectors, chosen.chunks, chosen.radix, chosen.tiles, chosen.strips)
    numbers = [*sum(rows, []), *extents, *sizing, workspace.data_ptr()]
    kernel = single_pass.kernel(variant, layout)
    with launch.Stream(a.device, {"a": a, "x": x, "out": out, "words": workspace}) as stream:
        stream.launch(kernel, 1, chosen.threads, numbers)
    expected = linear_recurrence_reference(a, x, torch.tensor(0.75))
    torch.testing.assert_close(out.double(), expected)


def test_tiles_and_groups_do_not_change_with_timing(small_tiles):
    a, x, h0, dh = draw((300, 1), torch.float32, 0)
    first = sweep_both(a, x, h0, dh)
    for one, other in zip(first, sweep_both(a, x, h0, dh), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
def test_only_the_gradients_that_are_asked_for_are_written(algorithm, small_tiles):
    for shape, dim in [TILED["columns"], TILED["thin"]]:
        a, x, h0, dh = draw(shape, torch.float64, dim)
        h = sweep.forward(a, x, h0, dim, False, algorithm, backend="cuda")
        whole = gradients.backward(a, h, h0, dh, x.shape, dim, False, algorithm, backend="cuda")
        for k in range(3):
            wanted = [k == j for j in range(3)]
            got = gradients.backward(
                a, h, h0, dh, x.shape, dim, False, algorithm, wanted=wanted, backend="cuda"
            )
            assert [one is not None for one in got] == wanted
            assert torch.equal(got[k], whole[k])


@not_finite
@pytest.mark.parametrize("columns", [1, 8])
@pytest.mark.parametrize("algorithm", ["serial", "blocked", "single_pass"])
def test_a_state_may_overflow_before_a_coefficient_of_zero(algorithm, columns, small_tiles):
    """All products of coefficients are finite here, and so is the state after the zero."""
    a, x, h0 = torch.ones(90, columns), torch.ones(90, columns), torch.full((columns,), 1e30)
    a[20] = 1e20
    for reset in (21, 22, 25, 39, 60, 89):
        a[reset] = 0
        h = sweep.forward(a, x, h0, 0, False, algorithm, backend="cuda")
        assert h[:20].isfinite().all() and h[20:reset].isinf().all()
        assert torch.equal(h[reset:, 0], torch.arange(1.0, 91 - reset))
        a[reset] = 1


@not_finite
@pytest.mark.parametrize("shape", [(700, 1), (200, 8)], ids=["thin", "columns"])
@pytest.mark.parametrize("radix", [1, 3])
@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
def test_a_product_may_overflow_where_the_states_do_not(
    algorithm, radix, shape, small_tiles, monkeypatch
):
    monkeypatch.setattr(plan, "RADIX", radix)
    a, x = torch.full(shape, 1e20), torch.zeros(shape)
    end = len(a) - 50
    a[end:], x[end + 10 :] = 0.5, 1.0
    h = sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    assert torch.equal(h[: end + 10], torch.zeros_like(h[: end + 10]))
    torch.testing.assert_close(h[-1], torch.full_like(h[-1], 2.0))


@not_finite
@pytest.mark.parametrize("shape", [(300, 1), (150, 8)], ids=["thin", "columns"])
@pytest.mark.parametrize("radix", [1, 3])
@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
def test_states_that_are_not_finite_equal_those_of_the_loop(
    algorithm, radix, shape, small_tiles, monkeypatch
):
    """A product of coefficients underflows to zero here, and 0 times infinity would be NaN."""
    monkeypatch.setattr(plan, "RADIX", radix)
    columns = shape[1]
    for start, bad in ((-np.inf, 0.0), (1.0, np.inf), (1.0, np.nan), (np.nan, 0.0)):
        a, x = torch.full(shape, 1e-30), torch.ones(shape)
        x[37] += bad
        a[len(a) - 20] = 0  # an exact zero stops NaN and infinity
        h0 = torch.full((columns,), start)
        for reverse in (False, True):
            args = [t.flip(0) if reverse else t for t in (a, x)]
            h = sweep.forward(*args, h0, 0, reverse, algorithm, backend="cuda")
            expected = linear_recurrence_reference(*args, h0, reverse=reverse).float()
            torch.testing.assert_close(h, expected, equal_nan=True)
        g = sweep.empty_output(a, x)
        sweep.backward(a, x, h0, x, 0, True, algorithm, None, (None, g, None), backend="cuda")
        later = torch.cat([a[:1] * 0, a[:-1]])
        expected = linear_recurrence_reference(later, x).float()
        torch.testing.assert_close(g, expected, equal_nan=True)


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_packed_sequences_equal_those_of_the_cpu(algorithm, reverse, small_tiles):
    cu_seqlens = torch.tensor([0, 0, 7, 30, 31, 60, 60])
    for dtype, dim in ((torch.float64, 0), (torch.complex64, 1)):
        shape, states = ((70, 3), (6, 3)) if dim == 0 else ((3, 70), (3, 6))
        a, x, _, dh = draw(shape, dtype, dim)
        for tensor in (a, x, dh):
            tensor.narrow(dim, 60, 10).fill_(float("nan"))
        for h0 in (torch.rand(states).to(dtype), None):
            found = []
            for backend, name in (("cpu", "serial"), ("cuda", algorithm)):
                options = dim, reverse, name, cu_seqlens
                h = sweep.forward(a, x, h0, *options, backend=backend)
                gradients_of = gradients.backward(a, h, h0, dh, shape, *options, backend=backend)
                found.append([h, *(t for t in gradients_of if t is not None)])
            for expected, got in zip(*found, strict=True):
                torch.testing.assert_close(got, expected)


@not_finite
@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_infinity_and_nan_reach_only_later_steps_of_their_column(algorithm, small_tiles):
    a, x, _, _ = draw((60, 9), torch.float32, 0, kind="lasts")
    clean = sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    x[15, 2], x[25, 7] = float("nan"), float("inf")
    h = sweep.forward(a, x, None, 0, False, algorithm, backend="cuda")
    touched = torch.zeros(h.shape, dtype=torch.bool)
    touched[15:, 2], touched[25:, 7] = True, True
    assert torch.equal(h[~touched], clean[~touched])
    assert h[15:, 2].isnan().all() and not h[25, 7].isfinite()


def test_memory_outside_the_tensors_is_refused(monkeypatch):
    a, x, h0, _ = draw((8, 4), torch.float32, 0)
    read = launch.Stream.launch

    def one_more_step(self, kernel, grid, threads, numbers):
        numbers = list(numbers)
        numbers[35] += 1
        read(self, kernel, grid, threads, numbers)

    monkeypatch.setattr(launch.Stream, "launch", one_more_step)
    with pytest.raises(IndexError, match="outside every tensor"):
        sweep.forward(a, x, h0, 0, False, "serial", backend="cuda")


def test_blocked_has_enough_chunks_for_the_device_and_none_too_short():
    assert blocked.chunk_length(100, 4, 132) == 64
    assert blocked.chunk_length(2**16, 128, 132) == 64
    assert -(-(2**16) // blocked.chunk_length(2**16, 4096, 132)) * 4096 >= 132 * 1024 * 0.9


# Few columns, so that tiles of 8 threads have at least four chunks.
FEW_COLUMNS = {"columns": ((16, 8), 0, 4), "time": ((2, 144), 1, 1)}


@not_finite
@pytest.mark.parametrize("order", FEW_COLUMNS)
def test_sums_over_chunks_may_overflow_where_the_states_do_not(order, small_tiles):
    """A scan across the chunks of a tile adds inputs that the loop never adds."""
    (steps, columns), dim, lanes = FEW_COLUMNS[order]
    steps, columns = (columns, steps) if dim else (steps, columns)
    chunk_steps, _ = shape_of(Variant(False, *["float32"] * 3), Layout(order, lanes))
    x = torch.zeros(steps, columns)
    x[: 4 * chunk_steps : chunk_steps] = torch.tensor([[-3e38], [3e38], [3e38], [-3e38]])
    x = x.transpose(0, dim).contiguous()
    h = sweep.forward(torch.ones_like(x), x, None, dim, False, "single_pass", backend="cuda")
    assert torch.equal(h, x.cumsum(dim)) and h.isfinite().all()
