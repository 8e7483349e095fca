"""The CUDA kernels without a GPU: in the simulator, and compiled to machine code and read."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

TESTS = Path(__file__).parent
SITE = Path(sysconfig.get_paths()["purelib"])
PTXAS = next(SITE.glob("nvidia/**/bin/ptxas"), None)


def test_kernels_in_the_simulator():
    """tests/simulator/, in a process where the simulator is on."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS / "simulator"],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout), done.stdout


@pytest.fixture
def kernels(monkeypatch):
    """(variant, capability) -> {name: (PTX, what ptxas says)} of every kernel."""
    cuda = pytest.importorskip("numba.cuda")
    import numba.cuda.dispatcher

    from lrscan.cuda import blocked, launch, serial

    if PTXAS is None:
        pytest.skip("ptxas is not installed; the wheel nvidia-cuda-nvcc brings it")

    def build(variant, capability, folder):
        # What a device function is compiled for; numba-cuda asks the driver, which is not here.
        device = SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(numba.cuda.dispatcher, "get_current_device", lambda: device)
        monkeypatch.setattr(
            launch,
            "compiled",
            lambda function, dtype, workspace=0: (function, launch.signature(dtype, workspace)),
        )
        made = [
            serial._serial_paper.__wrapped__(variant),
            serial._serial.__wrapped__(variant),
            *blocked._kernels.__wrapped__(variant),
        ]
        results = {}
        for function, signature in made:
            ptx, _ = cuda.compile(
                function, signature, device=False, abi="numba", cc=capability, output="ptx"
            )
            source = folder / f"{function.__name__}.ptx"
            source.write_text(ptx)
            arch = f"-arch=sm_{capability[0]}{capability[1]}"
            done = subprocess.run(
                [PTXAS, arch, "-v", source, "-o", source.with_suffix(".cubin")],
                capture_output=True,
                text=True,
                check=True,
            )
            results[function.__name__] = (ptx, done.stderr)
        return results

    return build


@pytest.mark.parametrize("capability", [(7, 5), (9, 0)], ids=["sm_75", "sm_90"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_compiles_without_spills_or_double_precision(
    dtype, backward, capability, kernels, tmp_path
):
    from lrscan.cuda.common import Variant

    made = kernels(Variant(backward, dtype, True, backward), capability, tmp_path)
    assert set(made) == {"serial_paper", "serial", "reduce", "carries", "apply"}
    for name, (ptx, report) in made.items():
        assert "0 bytes spill stores, 0 bytes spill loads" in report, (name, report)
        assert ".f64" not in ptx, name
        registers = int(re.search(r"Used (\d+) registers", report)[1])
        assert registers <= (160 if name == "serial" else 64), (name, registers)


def test_double_precision_is_seen_where_it_is_used(kernels, tmp_path):
    from lrscan.cuda.common import Variant

    made = kernels(Variant(False, torch.float64, True, False), (9, 0), tmp_path)
    assert all(".f64" in ptx for ptx, _ in made.values())
