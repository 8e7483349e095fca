"""The sources of a CUDA kernel's machine code: the cache, a kit, or the compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba.cuda")
from lrscan.campaign import warmup  # noqa: E402
from lrscan.core import kernel_files  # noqa: E402
from lrscan.cuda import launch, machine_code, serial  # noqa: E402
from lrscan.cuda.steps import Variant  # noqa: E402

SM_90 = (9, 0)


@pytest.fixture
def kernel():
    return serial.serial_paper_kernel(Variant(False, "float32", "float32", "float32", True, False))


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Provide an empty cache, and a fake compiler that records its calls."""
    made = []

    def compiled(kernel, capability):
        made.append((kernel.name, capability))
        return b"compiled"

    cache = tmp_path / "cache"
    monkeypatch.setattr(machine_code, "_cache_path", lambda kernel, name: cache / f"{name}.cubin")
    monkeypatch.setattr(machine_code, "compiled", compiled)
    monkeypatch.delenv("LRSCAN_KERNELS", raising=False)
    monkeypatch.setattr(machine_code, "tally", machine_code.Counter())
    return made


def test_a_kernel_is_compiled_once_and_cached(kernel, machine):
    assert machine_code.machine_code(kernel, SM_90) == b"compiled"
    assert machine_code.machine_code(kernel, SM_90) == b"compiled"
    assert len(machine) == 1
    assert machine_code.tally == {machine_code.COMPILED: 1, machine_code.KEPT: 1}


def test_a_kernel_of_a_kit_is_not_compiled(kernel, machine, tmp_path, monkeypatch):
    assert machine_code.export(kernel, SM_90, tmp_path / "kit")
    assert not machine_code.export(kernel, SM_90, tmp_path / "kit")
    assert len(machine) == 1
    (path,) = (tmp_path / "kit").iterdir()
    kernel_files.write(path, b"carried")
    monkeypatch.setenv("LRSCAN_KERNELS", str(tmp_path / "kit"))
    # The kernel is used although this machine has other compilers.
    monkeypatch.setattr(machine_code, "_compilers", lambda: "others")
    assert machine_code.machine_code(kernel, SM_90) == b"carried"
    assert machine_code.tally[machine_code.CARRIED] == 1
    # But it is not used for another GPU, or if the sources differ.
    assert machine_code.machine_code(kernel, (8, 0)) == b"compiled"
    monkeypatch.setattr(machine_code, "digest", lambda folder: "f" * 64)
    assert machine_code.machine_code(kernel, SM_90) == b"compiled"


def test_code_that_the_driver_refuses_is_compiled_instead(kernel, machine, tmp_path, monkeypatch):
    pytest.importorskip("cuda.bindings.driver")
    machine_code.export(kernel, SM_90, tmp_path / "kit")
    (path,) = (tmp_path / "kit").iterdir()
    kernel_files.write(path, b"of a newer linker")
    (tmp_path / "cache" / path.name).unlink()
    monkeypatch.setenv("LRSCAN_KERNELS", str(tmp_path / "kit"))

    def driver(function, *arguments):
        if function == "cuModuleLoadData" and arguments != (b"compiled",):
            raise RuntimeError("cuModuleLoadData failed: CUDA_ERROR_INVALID_IMAGE")
        return function

    monkeypatch.setattr(launch, "_driver", driver)
    machine_code.tally.clear()
    assert kernel._load(SM_90) == "cuModuleGetFunction"
    assert len(machine) == 2
    assert machine_code.tally == {machine_code.CARRIED: 0, machine_code.COMPILED: 1}


@pytest.mark.parametrize("damage", [lambda code: code[:-1], lambda code: b""], ids=["cut", "empty"])
def test_a_damaged_file_is_ignored_in_the_kit_and_in_the_cache(
    kernel, machine, tmp_path, monkeypatch, damage
):
    """It reaches neither the driver nor another folder, and is written again."""
    kit, again = tmp_path / "kit", tmp_path / "again"
    machine_code.export(kernel, SM_90, kit)
    (carried,), (own,) = kit.iterdir(), (tmp_path / "cache").iterdir()
    for path in (carried, own):
        path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setenv("LRSCAN_KERNELS", str(kit))
    assert list(machine_code.sources(kernel, SM_90)) == [b"compiled"] and len(machine) == 2
    assert kernel_files.read(own) == b"compiled"
    own.write_bytes(damage(own.read_bytes()))
    assert machine_code.export(kernel, SM_90, again)
    assert kernel_files.read(again / carried.name) == b"compiled"
    assert machine_code.export(kernel, SM_90, kit) and kernel_files.read(carried) == b"compiled"


def test_code_that_the_driver_never_accepts_is_an_error(kernel, monkeypatch):
    pytest.importorskip("cuda.bindings.driver")

    def driver(function, *arguments):
        if function == "cuModuleLoadData":
            raise RuntimeError("cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU")

    monkeypatch.setattr(launch, "_driver", driver)
    with pytest.raises(RuntimeError, match="NO_BINARY_FOR_GPU"):
        kernel._load(SM_90)


def test_a_kernel_runs_although_the_disk_is_full(kernel, machine, monkeypatch):
    def full(files):
        raise OSError("No space left on device")

    monkeypatch.setattr(kernel_files, "write_files", full)
    assert machine_code.machine_code(kernel, SM_90) == b"compiled"


def test_kernels_of_a_kit_need_no_compiler(tmp_path):
    """Compile in one process, as if with NumPy 2.5, and load in one that cannot compile."""
    try:
        warmup.check_compilers()
    except warmup.WarmupError as error:
        pytest.skip(str(error))
    script = (
        "import sys, numpy\n"
        "vars(numpy).pop('row_stack', None)\n"
        "from pathlib import Path\n"
        "from lrscan.cuda import machine_code as cubins, serial\n"
        "from lrscan.cuda.steps import Variant\n"
        "one = serial.serial_paper_kernel(Variant(False, *['float32'] * 3, True, False))\n"
        "if len(sys.argv) > 1:\n"
        "    cubins.export(one, (9, 0), Path(sys.argv[1]))\n"
        "else:\n"
        "    cubins.numba_cuda.compiled_to_ptx = cubins.numba_cuda.linked = None\n"
        "    code = cubins.machine_code(one, (9, 0))\n"
        "    print(code[:4], dict(cubins.tally))\n"
    )
    root = Path(__file__).parents[2]
    first = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=root, capture_output=True)
    assert first.returncode == 0, first.stderr.decode()
    settings = os.environ | {"LRSCAN_KERNELS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=settings, capture_output=True, text=True
    )
    assert done.stdout.strip() == r"b'\x7fELF' {'carried': 1}", done.stderr
