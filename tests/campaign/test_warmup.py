"""Tests of compilation ahead of time, and of the message that a kernel is being compiled."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from projects import LONGEST_S, wait_until

from lrscan.campaign import warmup
from lrscan.cli import commands
from lrscan.core import compilation


def invoke(*arguments):
    return CliRunner().invoke(commands.main, ["warmup", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cuda", "6.1"], "architecture 6.1 is too old: the oldest supported one is 7.5"),
        (["--cuda", "hopper"], "a CUDA architecture is written like 9.0, not 'hopper'"),
        (["--dtype", "int8"], "--dtype must be one of float64, float32, float16"),
        (["--out", "kernels"], "--out is for CUDA kernels: name an architecture"),
        (["--jobs", "0"], "0 is not in the range x>=1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(arguments, message, monkeypatch):
    monkeypatch.setattr(warmup, "warm_cpu", None)
    monkeypatch.setattr(warmup, "compile_all", None)
    result = invoke(*arguments)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


@pytest.mark.parametrize("text", ["9.0", "90", "sm_90"])
def test_an_architecture_can_be_written_in_several_ways(text):
    assert warmup.capability(text) == (9, 0)
    assert warmup.capability("12.0") == warmup.capability("sm_120") == (12, 0)


def test_a_machine_without_compilers_says_how_to_get_them(monkeypatch):
    pytest.importorskip("numba.cuda")
    from lrscan.cuda import machine_code

    def lacking(*arguments):
        raise RuntimeError("libNVVM cannot be found")

    monkeypatch.setattr(machine_code, "ptx", lacking)
    result = invoke("--cuda", "9.0", "--no-cpu")
    output = " ".join(result.output.split())
    assert result.exit_code == 2
    assert "cannot be compiled here: RuntimeError: libNVVM cannot be found (to install" in output


def test_cpu_kernels_are_compiled_once_for_a_dtype(tmp_path):
    """Compile in a new process; a second process finds all kernels on disk."""
    script = (
        "from lrscan import linear_recurrence\nfrom lrscan.campaign import warmup\n"
        "from lrscan.cpu import compile as compiling\n"
        "import torch\n"
        "print(*warmup.warm_cpu('float32'), flush=True)\n"
        "before = compiling.tally.total()\n"
        "a, x = (torch.rand(500, 96).requires_grad_() for _ in range(2))\n"
        "linear_recurrence(a, x).sum().backward()\n"
        "print(compiling.tally.total() - before)\n"
    )
    root = Path(__file__).parents[2]

    def run():
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
        )
        return [int(word) for word in done.stdout.split()]

    compiled, kept, needed = run()
    assert compiled + kept > 10 and needed == 0  # the call afterwards needed no other kernel
    assert run() == [0, compiled + kept, 0]


def one_kernel():
    from lrscan.cuda import serial
    from lrscan.cuda.steps import Variant

    kernel = serial.serial_paper_kernel(Variant(False, *["float32"] * 3, True, False))
    return {kernel.name: kernel}


def test_cuda_kernels_are_compiled_by_other_processes_into_a_folder(tmp_path):
    pytest.importorskip("numba.cuda")
    try:
        warmup.check_compilers()
    except warmup.WarmupError as error:
        pytest.skip(str(error))
    seen = []
    given = ("test_warmup:one_kernel", (), (9, 0), tmp_path, 1, lambda *n: seen.append(n))
    assert warmup.compile_all(*given) == (1, 0)
    assert warmup.compile_all(*given) == (0, 1)
    assert seen == [(1, 1)] * 2
    (path,) = tmp_path.iterdir()
    assert path.read_bytes()[:4] == b"\x7fELF" and "-sm90-" in path.name


def test_the_common_kernels_are_few_and_of_every_order_in_memory():
    pytest.importorskip("numba.cuda")
    names = list(warmup.common_kernels(["float32"]))
    assert len(names) < 12
    for order in ("columns", "time", "thin"):
        assert any(f"single_pass-{order}" in name for name in names)


def test_a_long_compilation_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(compilation, "PATIENCE_S", 0.05)
    for kept, words in ((True, "kept for the next time"), (False, "not kept: no cache folder")):
        caplog.clear()
        with compilation.noticed("the CPU kernel x", kept=kept):
            wait_until(lambda: caplog.messages)
            time.sleep(0.2)
        (message,) = caplog.messages
        assert message.startswith("compiling the CPU kernel x") and words in message


def test_a_short_compilation_is_not_logged(caplog, monkeypatch):
    monkeypatch.setattr(compilation, "PATIENCE_S", LONGEST_S)
    with compilation.noticed("the CPU kernel x", kept=True):
        pass
    assert not caplog.messages


def test_the_logger_can_be_silenced(caplog, monkeypatch):
    monkeypatch.setattr(compilation, "PATIENCE_S", 0.01)
    logger = logging.getLogger("lrscan.compilation")
    with compilation.quiet(), compilation.noticed("the CPU kernel x", kept=True):
        time.sleep(0.2)
    assert not caplog.messages and not logger.disabled
    logger.disabled = True
    try:
        with compilation.noticed("the CPU kernel x", kept=True):
            time.sleep(0.2)
    finally:
        logger.disabled = False
    assert not caplog.messages
