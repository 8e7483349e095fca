"""The calls that a sweep makes to the CUDA driver, recorded by a fake driver."""

import ctypes
import struct
import threading
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("numba.cuda")
from lrscan.core import sweep  # noqa: E402
from lrscan.core.sweep import Rows  # noqa: E402
from lrscan.cuda import launch, serial  # noqa: E402
from lrscan.cuda.single_pass import lookback  # noqa: E402


@pytest.fixture
def calls(monkeypatch):
    """Record the calls of the driver as (function, the arguments that matter)."""
    noted = []

    def driver(function, *args):
        if function == "cuLaunchKernel":
            kernel, *shape, shared, stream, parameters, extra = args
            assert (shared, parameters) == (0, 0)
            mark, buffer, size_mark, size, end = (ctypes.c_void_p * 5).from_address(extra)
            assert (mark, size_mark, end) == (1, 2, None)  # the constants in the driver's header
            length = ctypes.c_size_t.from_address(size).value
            numbers = struct.unpack(f"={length // 8}q", ctypes.string_at(buffer, length))
            args = (kernel, tuple(shape), stream, numbers)
        noted.append((function, args))
        answers = {"cuCtxGetCurrent": 0, "cuDeviceGet": 40, "cuDevicePrimaryCtxRetain": 41}
        return answers.get(function)

    monkeypatch.setattr(launch, "_driver", driver)
    monkeypatch.setattr(launch._parameters, "bound", True)  # for this thread
    monkeypatch.setattr(launch.Kernel, "handle", lambda self, device: self.function.__name__)
    monkeypatch.setattr("lrscan.cuda.dispatch.processors", lambda device: 132)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    stream = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    sweep._prepared.cache_clear()
    yield noted
    sweep._prepared.cache_clear()


def test_a_single_pass_clears_its_workspace_and_launches_once(calls):
    a, x, h0 = torch.rand(1000, 64), torch.rand(1000, 64), torch.rand(64)
    h = sweep.forward(a, x, h0, 0, False, "single_pass", backend="cuda")
    (clear, (address, value, count, stream)), (start, (kernel, shape, same, numbers)) = calls
    assert (clear, value, stream) == ("cuMemsetD32Async", 0, 77)
    assert (start, kernel, same) == ("cuLaunchKernel", "single_pass", 77)
    rows = {row: numbers[5 * i : 5 * i + 5] for i, row in enumerate(Rows._fields)}
    for row, tensor in {"a": a, "x": x, "out": h}.items():
        assert rows[row] == (tensor.data_ptr(), 256, 0, 0, 4)
    assert rows["start"] == (h0.data_ptr(), 0, 0, 0, 4)
    assert rows["before"] == rows["da"] == rows["dstart"] == (0,) * 5
    extents, (vectors, chunks, radix, tiles, strips, workspace) = numbers[35:39], numbers[39:]
    assert extents == (1000, 1, 1, 64)
    assert (tiles, strips) == (-(-1000 // (chunks * 8)), -(-16 // vectors))
    assert shape == (tiles * strips, 1, 1, -(-vectors * chunks // 32) * 32, 1, 1)
    assert (address, 4 * count) == (
        workspace,
        lookback.workspace_bytes(lookback.WordCounts(1, 1), tiles, 64, radix),
    )


def test_a_reversed_sweep_begins_at_the_last_step(calls):
    a, x = torch.rand(10, 3), torch.rand(10, 3)
    sweep.forward(a, x, None, 0, True, "serial", backend="cuda")
    ((_, (kernel, shape, _, numbers)),) = calls
    assert (kernel, shape) == ("serial", (1, 1, 1, 64, 1, 1))
    assert numbers[:2] == (a.data_ptr() + 9 * 12, -12)


def test_the_second_call_with_a_layout_uses_the_new_addresses(calls):
    for _ in range(2):
        a, x = torch.rand(2, 50), torch.rand(2, 50)
        h = sweep.forward(a, x, None, 1, False, "blocked", backend="cuda")
        launches = [args for function, args in calls if function == "cuLaunchKernel"]
        assert [args[0] for args in launches] == ["reduce", "carries", "apply"]
        for args in launches:
            assert args[3][0:16:5][:2] == (a.data_ptr(), x.data_ptr())
            assert args[3][15] == h.data_ptr()
        calls.clear()


def test_a_thread_without_a_context_gets_that_of_torch_first(calls):
    """The thread in which torch runs backward has no context until it allocates memory."""
    a, x = torch.rand(2, 50), torch.rand(2, 50)

    def twice():
        for _ in range(2):
            sweep.forward(a, x, None, 0, False, "serial", backend="cuda")

    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
    binding = [("cuCtxGetCurrent", ()), ("cuDeviceGet", (None,))]
    binding += [("cuDevicePrimaryCtxRetain", (40,)), ("cuCtxSetCurrent", (41,))]
    assert calls[:4] == binding
    assert [function for function, _ in calls[4:]] == ["cuLaunchKernel"] * 2


def test_an_error_of_the_driver_is_raised_by_name(monkeypatch):
    driver = pytest.importorskip("cuda.bindings.driver")
    refused = driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    monkeypatch.setattr(driver, "cuMemsetD32Async", lambda *args: (refused,))
    with pytest.raises(RuntimeError, match="cuMemsetD32Async failed: CUDA_ERROR_OUT_OF_MEMORY"):
        launch._driver("cuMemsetD32Async", 0, 0, 0, 0)


def test_the_default_stream_of_torch_is_passed_as_the_legacy_stream(calls, monkeypatch):
    """A 0 could mean the default stream of the thread."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=0))
    a, x = torch.rand(2, 50), torch.rand(2, 50)
    sweep.forward(a, x, None, 0, False, "serial", backend="cuda")
    ((_, (_, _, stream, _)),) = calls
    assert stream == 1  # CU_STREAM_LEGACY


@pytest.mark.parametrize("fails", [False, True])
def test_the_capture_mode_is_relaxed_only_while_a_kernel_is_loaded(monkeypatch, fails):
    relaxed = pytest.importorskip(
        "cuda.bindings.driver"
    ).CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    noted = []

    def driver(function, *args):
        noted.append((function, args))
        if fails and function == "cuModuleLoadData":
            raise RuntimeError("cuModuleLoadData failed")
        return {"cuThreadExchangeStreamCaptureMode": "strict", "cuModuleLoadData": 5}.get(function)

    monkeypatch.setattr(launch, "_driver", driver)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(launch.machine_code, "sources", lambda kernel, capability: iter([b"code"]))
    kernel = launch.Kernel(lambda: None, "name", serial.NoSizing, 128)
    if fails:
        with pytest.raises(RuntimeError):
            kernel.handle(0)
    else:
        kernel.handle(0)
    assert noted[0] == ("cuThreadExchangeStreamCaptureMode", (relaxed,))
    assert noted[-1] == ("cuThreadExchangeStreamCaptureMode", ("strict",))
    assert ("cuModuleLoadData", (b"code",)) in noted
