"""The operator on a CUDA device: run ``python -m pytest tests/cuda/test_cuda.py``.

The tests are skipped without a device. They need torch, numba, numba-cuda, NVVM (the wheel
nvidia-nvvm, or a toolkit that CUDA_HOME names), pytest and pytest-timeout. The largest case needs
about 40 GB of device memory and is skipped on a smaller device. With CUDA_SMALL=1 all inputs are
small, for compute-sanitizer.
"""

import functools
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import matrices
import pytest
import torch
from recurrences import KINDS, check, compare, draw, spoiled

from lrscan import linear_recurrence, packed_linear_recurrence
from lrscan.campaign.smoke import LAYOUTS
from lrscan.core import gradients, sweep
from lrscan.core.checks import ALGORITHMS
from lrscan.core.dtypes import DTYPES
from lrscan.core.reference import oracle
from lrscan.cuda.launch import Kernel

SMALL = os.environ.get("CUDA_SMALL") == "1"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
full_size = pytest.mark.skipif(SMALL, reason="CUDA_SMALL=1")
# Larger layouts than those of a smoke test.
LARGE = {
    "one-column": ((200_000, 1), 0),
    "thin": ((70_001, 3), 0),
    "columns": ((20_000, 128), 0),
    "columns-unaligned": ((9_999, 31), 0),
    "time": ((7, 60_000), 1),
    "time-unaligned": ((7, 30_001), 1),
    "columns-beyond-65535": ((40, 70_001), 0),
}


def on_gpu(*tensors):
    return [tensor.cuda() for tensor in tensors]


def run(a, x, h0, dh, **options):
    """Compute (h, da, dx, dh0) with the operator."""
    inputs = [t.detach().clone().requires_grad_() for t in (a, x, h0)]
    h = linear_recurrence(*inputs, **options)
    return [h.detach(), *torch.autograd.grad(h, inputs, dh)]


def agree(a, x, h0, dh, dim=0, reverse=False, algorithm="auto"):
    results = run(*on_gpu(a, x, h0, dh), dim=dim, reverse=reverse, algorithm=algorithm)
    check([result.cpu() for result in results], a, x, h0, dh, dim, reverse)


@functools.cache
def known(shape, dim, dtype, kind):
    """Return (inputs, exact results), cached because the loop takes longer than the kernels."""
    inputs = draw(shape, dtype, dim, kind=kind)
    return inputs, oracle(*inputs, dim=dim)


def agree_both_ways(shape, dim, dtype, kind, algorithm):
    """Check the inputs as they are, and again with both the tensors and the sweep reversed."""
    inputs, expected = known(shape, dim, dtype, kind)
    compare([t.cpu() for t in run(*on_gpu(*inputs), dim=dim, algorithm=algorithm)], expected)
    turned = [t if t.dim() < len(shape) else t.flip(dim) for t in on_gpu(*inputs)]
    results = run(*turned, dim=dim, reverse=True, algorithm=algorithm)
    compare([t.cpu() if t.dim() < len(shape) else t.flip(dim).cpu() for t in results], expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_loop_in_every_layout(kind, dtype, algorithm):
    for shape, dim in LAYOUTS.values():
        agree_both_ways(shape, dim, dtype, kind, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_coefficient_of_zero_forgets_nan_and_infinity(dtype, algorithm):
    for shape, dim in LAYOUTS.values():
        agree(*spoiled(*draw(shape, dtype, dim, kind="lasts")), dim, algorithm=algorithm)


def test_packed_sequences_do_not_affect_each_other():
    a, x, h0, dh = on_gpu(*draw((4000, 70), torch.float32, 0, kind="lasts"))
    cu_seqlens = torch.tensor([0, 700, 701, 3000, 4000])
    a[800, :9] = x[2000, :9] = dh[2500, :9] = float("nan")
    h0 = h0.expand(4, 70)
    leaves = [t.clone().requires_grad_() for t in (a, x, h0)]
    h = linear_recurrence(*leaves, cu_seqlens=cu_seqlens)
    *found, dh0 = torch.autograd.grad(h, leaves, dh)
    for whole in (h, *found):
        assert whole[:701].isfinite().all() and whole[3000:].isfinite().all()
        assert not whole[701:3000, :9].isfinite().all() and whole[:, 9:].isfinite().all()
    assert dh0[[0, 1, 3]].isfinite().all() and not dh0[2, :9].isfinite().any()


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
@pytest.mark.parametrize("dim", [0, 1])
def test_an_algebra_of_matrices_agrees_with_the_loop(dim, algorithm):
    for shape in ((1000, 64), (1000, 3), (4099, 1)):
        tensors = matrices.draw(shape)
        for reverse in (False, True):
            found = matrices.by_kernels_in_layout(on_gpu(*tensors), dim, reverse, algorithm, "cuda")
            expected = matrices.exact(*tensors, reverse)
            matrices.check([t.cpu() for t in found], expected)


@full_size
@pytest.mark.parametrize("layout", LARGE)
def test_agrees_with_the_loop_at_full_size(layout):
    for algorithm in ALGORITHMS["cuda"]:
        agree_both_ways(*LARGE[layout], torch.float32, "lasts", algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
@pytest.mark.parametrize("layout", ["columns", "time", "thin"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_takes_coefficients_in_single_precision(kind, layout, algorithm):
    shape, dim = LAYOUTS[layout]
    a, _, h0, _ = draw(shape, torch.float32, dim, kind=kind)
    _, x, _, dh = draw(shape, torch.bfloat16, dim)
    agree(a, x, h0, dh, dim, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
@pytest.mark.parametrize(
    "part",
    [lambda a: a[:1], lambda a: a[:, :1], lambda a: a[:1, :1]],
    ids=["per-column", "per-step", "constant"],
)
def test_broadcast_coefficients(part, algorithm):
    for shape, dim in (LAYOUTS["columns"], LAYOUTS["time"], LAYOUTS["thin"]):
        a, x, h0, _ = draw(shape, torch.float32, dim)
        short, x, h0 = on_gpu(part(a).contiguous(), x, h0)
        h = linear_recurrence(short, x, h0, dim=dim, algorithm=algorithm)
        whole = linear_recurrence(short.expand(shape).clone(), x, h0, dim=dim, algorithm="serial")
        torch.testing.assert_close(h, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_strided_inputs_are_read_in_place(algorithm):
    a, x, h0, dh = draw((400, 96), torch.float32, 0)
    agree(a[::2, ::3], x[1::2, 1::3], h0[::3], dh[::2, 2::3], algorithm=algorithm)
    agree(a.T.contiguous().T, x, h0, dh, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS["cuda"])
def test_an_empty_sequence_has_an_empty_result(algorithm):
    a, x, h0, dh = draw((0, 3), torch.float32, 0)
    for result in run(*on_gpu(a, x, h0, dh), algorithm=algorithm)[:3]:
        assert result.shape == (0, 3)


@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
@pytest.mark.parametrize("shape", [(90_000, 1), (20_000, 32)], ids=["thin", "columns"])
def test_a_product_may_overflow_where_the_states_do_not(shape, algorithm):
    a, x = torch.full(shape, 1e20, device="cuda"), torch.zeros(shape, device="cuda")
    end = len(a) - 500
    a[end:], x[end + 10 :] = 0.5, 1.0
    h = linear_recurrence(a, x, algorithm=algorithm)
    assert not h[: end + 10].any()
    torch.testing.assert_close(h[-1], torch.full_like(h[-1], 2.0))


@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_graph_replays_the_same_bits(layout, algorithm):
    shape, dim = LAYOUTS[layout]
    a, x, h0, dh = on_gpu(*draw(shape, torch.float32, dim))
    options = (dim, False, algorithm)

    def both():
        h = sweep.forward(a, x, h0, *options)
        return h, *gradients.backward(a, h, h0, dh, x.shape, *options)

    expected = both()  # also compiles and loads the kernels, which must not happen in a capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = both()
    for replay in range(4):
        if replay == 2:  # other inputs at the same addresses: nothing may remain of the earlier run
            x.mul_(3)
            expected = both()
        for result in results:
            result.fill_(float("nan"))
        graph.replay()
        for result, value in zip(results, expected, strict=True):
            assert torch.equal(result, value)


def test_a_kernel_may_be_loaded_in_a_capture():
    a, x = (torch.rand(300, 128, device="cuda") for _ in range(2))
    expected = linear_recurrence(a, x)
    for kernel in gc.get_objects():
        if isinstance(kernel, Kernel):
            kernel._handles.clear()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = linear_recurrence(a, x)
    graph.replay()
    assert torch.equal(result, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_packed_sequences(dtype, reverse):
    cu_seqlens = torch.tensor([0, 0, 7, 300, 301, 900])
    a, x = torch.rand(900, 40), torch.randn(900, 40).to(dtype)
    h0, dh = torch.randn(5, 40), torch.randn(900, 40).to(dtype)
    found = []
    for device in ("cpu", "cuda"):
        inputs = [t.detach().to(device).requires_grad_() for t in (a, x, h0)]
        h = packed_linear_recurrence(inputs[0], inputs[1], cu_seqlens, inputs[2], reverse=reverse)
        found.append([h, *torch.autograd.grad(h, inputs, dh.to(device))])
    near = 1e-4 if dtype == torch.float32 else 2e-2
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=near, atol=near)


@full_size
@pytest.mark.parametrize("algorithm", ["blocked", "single_pass"])
@pytest.mark.parametrize("shape", [(2**22, 1), (2**18, 16), (2**14, 1024)], ids=str)
def test_the_same_bits_on_every_run_while_the_device_is_busy(shape, algorithm):
    a, x = (torch.rand(shape, device="cuda") for _ in range(2))
    expected = linear_recurrence(a, x, algorithm=algorithm)
    noise, other = torch.rand(4096, 4096, device="cuda"), torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(other):
            noise @ noise  # noqa: B018
        assert torch.equal(linear_recurrence(a, x, algorithm=algorithm), expected)


@pytest.mark.parametrize("algorithm", ["serial", "blocked", "single_pass"])
def test_runs_on_the_current_stream(algorithm):
    a, x, _, _ = on_gpu(*draw((2000, 64), torch.float32, 0))
    expected = linear_recurrence(a, x * 2, algorithm=algorithm)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        h = linear_recurrence(a, x * 2, algorithm=algorithm)
    stream.synchronize()
    assert torch.equal(h, expected)


@pytest.mark.parametrize("algorithm", ["serial", "single_pass"])
def test_a_thread_that_has_never_called_cuda_may_scan(algorithm):
    """It has no context of the driver, like the thread in which torch runs backward."""
    a, x = (torch.rand(300, 64, device="cuda") for _ in range(2))
    expected = linear_recurrence(a, x, algorithm=algorithm)  # loads the kernel and fills the cache
    found = []
    thread = threading.Thread(
        target=lambda: found.append(linear_recurrence(a, x, algorithm=algorithm))
    )
    thread.start()
    thread.join()
    assert torch.equal(found[0], expected)


@full_size
@pytest.mark.parametrize("streams", [2, 8])
def test_scans_that_share_the_device_do_not_wait_for_each_other_for_ever(streams):
    a, x = (torch.rand(2**22, 2, device="cuda") for _ in range(2))
    expected = linear_recurrence(a, x, algorithm="single_pass")
    torch.cuda.synchronize()
    results, lanes = [], [torch.cuda.Stream() for _ in range(streams)]
    for _ in range(5):
        for lane in lanes:
            with torch.cuda.stream(lane):
                results.append(linear_recurrence(a, x, algorithm="single_pass"))
    torch.cuda.synchronize()
    assert all(torch.equal(result, expected) for result in results)


@full_size
@pytest.mark.parametrize("layout", ["columns", "time", "one-column"])
@pytest.mark.parametrize("algorithm", ["serial", "single_pass"])
def test_more_than_two_to_the_31_elements(layout, algorithm):
    """With coefficients of 0 and -1 the right states are known without a second scan."""
    shape, dim = {
        "columns": ((2**21 + 8, 1032), 0),
        "time": ((1032, 2**21 + 8), 1),
        "one-column": ((2**31 + 2**20, 1), 0),
    }[layout]
    if algorithm == "serial" and layout == "one-column":
        pytest.skip("a single thread takes minutes for all steps")
    needed = 3 * 2 * torch.Size(shape).numel()
    if torch.cuda.mem_get_info()[0] < 1.3 * needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of device memory")
    x = torch.randint(-8, 9, shape, dtype=torch.int8, device="cuda").to(torch.float16)
    a = torch.zeros(1, 1, dtype=torch.float16, device="cuda").expand(shape)
    h = linear_recurrence(a, x, dim=dim, algorithm=algorithm)
    assert torch.equal(h, x)
    del h
    # With a = -1 and the inputs x[t] + x[t-1], the states are the old x.
    a = torch.ones(1, 1, dtype=torch.float16, device="cuda").neg().expand(shape)
    summed = x.narrow(dim, 1, shape[dim] - 1) + x.narrow(dim, 0, shape[dim] - 1)
    x.narrow(dim, 1, shape[dim] - 1).copy_(summed)
    del summed
    h = linear_recurrence(a, x, dim=dim, algorithm=algorithm)
    ends = h.narrow(dim, shape[dim] - 1000, 1000) + h.narrow(dim, shape[dim] - 1001, 1000)
    assert torch.equal(ends, x.narrow(dim, shape[dim] - 1000, 1000))
    assert h.abs().max() <= 8


@full_size
def test_auto_is_never_far_behind_the_best():
    """``lrscan bench`` has the full comparison; this test only finds a badly wrong rule."""
    for shape, dim in [((256, 8192), 0), ((65_536, 32), 0), ((2**20, 1), 0), ((4096, 4096), 1)]:
        a, x = (torch.rand(shape, device="cuda") for _ in range(2))
        out = torch.empty_like(x)
        times = {}
        for algorithm in ("auto", "serial", "blocked", "single_pass"):
            sweep.forward(a, x, None, dim, False, algorithm, out=out)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(10):
                sweep.forward(a, x, None, dim, False, algorithm, out=out)
            end.record()
            end.synchronize()
            times[algorithm] = begin.elapsed_time(end)
        assert times["auto"] <= 2 * min(times.values()), (shape, times)


@full_size
def test_a_call_costs_the_host_little():
    a, x = (torch.rand(64, 64, device="cuda") for _ in range(2))
    out = torch.empty_like(x)
    for algorithm in ("serial", "single_pass"):
        costs = []
        for _ in range(30):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(20):
                sweep.forward(a, x, None, 0, False, algorithm, out=out)
            costs.append((time.perf_counter() - begin) / 20)
        cost = sorted(costs)[len(costs) // 2] * 1e6
        print(f"{algorithm}: {cost:.1f} microseconds")
        assert cost < 100


@full_size
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool):
    """A small part of these tests runs under NVIDIA's checker.

    Errors that the driver returns are not counted: cuda.bindings looks for functions that older
    drivers lack, and torch handles its own errors.
    """
    checker = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(checker).exists():
        pytest.skip("compute-sanitizer is not installed")
    chosen = "(single_pass or blocked) and float32 and every_layout"
    done = subprocess.run(
        [
            checker,
            "--tool",
            tool,
            "--error-exitcode",
            "9",
            "--report-api-errors",
            "no",
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            __file__,
            "-k",
            chosen,
        ],
        env=os.environ | {"CUDA_SMALL": "1", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    if "Device not supported" in done.stdout:
        pytest.skip("compute-sanitizer does not run on this device")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
