"""The CUDA kernels without a GPU: run in the simulator, and checked as compiled machine code."""

import functools
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from matrices import MATRICES

from lrscan.core.algebra import SCALAR

SIMULATOR = Path(__file__).with_name("simulator")
SITE = Path(sysconfig.get_paths()["purelib"])
PTXAS = next(SITE.glob("nvidia/**/bin/ptxas"), None)
NVDISASM = next(SITE.glob("nvidia/**/bin/nvdisasm"), None)


@pytest.fixture(scope="module", autouse=True)
def simulation(tmp_path_factory):
    """Run the tests in simulator/ in a process that has the simulator on, while these tests run."""
    log = tmp_path_factory.mktemp("simulator") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SIMULATOR],
            env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        yield process, log
        process.kill()
        process.wait()


class Code(NamedTuple):
    """A kernel in machine code.

    Attributes:
        parameters: types of the kernel's parameters in PTX
        registers: registers per thread
        spilled: bytes of spill stores and spill loads
        shared: bytes of shared memory per block
        ops: (address, operation with its modifiers, operands) of every instruction
    """

    parameters: list[str]
    registers: int
    spilled: int
    shared: int
    ops: list[tuple[int, str, str]]

    def count(self, operation: str) -> int:
        return sum(re.match(operation, op) is not None for _, op, _ in self.ops)


def disassemble(ptx: str, capability: tuple[int, int]) -> tuple[str, str]:
    """Assemble PTX, and return the assembler's report and the disassembly."""
    arch = f"-arch=sm_{capability[0]}{capability[1]}"
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "k.ptx"), Path(folder, "k.cubin")
        source.write_text(ptx)
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
        report = run([PTXAS, arch, "-v", source, "-o", cubin]).stderr
        return report, run([NVDISASM, "-c", cubin]).stdout


@functools.cache
def build(case: str, capability: tuple[int, int]) -> Code:
    """Compile a kernel of CASES as a launch does, and read its machine code."""
    ptx = ptx_of(kernel_of(case), capability)
    report, listing = disassemble(ptx, capability)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    shared = re.search(r"(\d+) bytes smem", report)
    return Code(
        re.findall(r"^\s*\.param \.(\w+)", ptx, re.M),
        int(re.search(r"Used (\d+) registers", report)[1]),
        int(spills[1]) + int(spills[2]),
        int(shared[1]) if shared else 0,
        read_listing(listing),
    )


def read_listing(listing: str) -> list[tuple[int, str, str]]:
    """Return the instructions of a disassembly, with labels of branches replaced by addresses."""
    labels, ops, pending = {}, [], []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            pending.append(label[1])
        elif op := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([\w.]+)(.*);", line):
            address = int(op[1], 16)
            labels |= dict.fromkeys(pending, address)
            pending = []
            ops.append((address, op[3], op[4]))
    return [
        (at, op, re.sub(r"`\((\.L_x_\d+)\)", lambda m: str(labels[m[1]]), operands))
        for at, op, operands in ops
    ]


class Limits(NamedTuple):
    """Limits for a kernel on every compute capability.

    Attributes:
        registers: the most registers per thread; with 128, two blocks of 256 threads fit on a
            multiprocessor
        shared: the most bytes of shared memory per block
        wide: the fewest loads of 16 bytes
    """

    registers: int
    shared: int = 0
    wide: int = 0


# Name of a kernel: (algorithm, backward, (kinds of a, x, h0), (order, lanes, same_a), limits).
SINGLE, HALF, COMPLEX = ("float32",) * 3, ("bfloat16",) * 3, ("complex64",) * 3
MIXED = ("float32", "float16", "float32")
MATRIX = ("float32_4", "float32_2", "float32_2")
ONE = "single_pass"
CASES = {
    "columns": (ONE, False, SINGLE, ("columns", 4, False), Limits(128, 28700, 16)),
    "columns-backward": (ONE, True, SINGLE, ("columns", 4, False), Limits(128, 28700, 24)),
    "time": (ONE, False, SINGLE, ("time", 4, False), Limits(128, 33900, 16)),
    "time-backward": (ONE, True, SINGLE, ("time", 1, False), Limits(128, 33900)),
    "thin": (ONE, False, SINGLE, ("thin", 1, False), Limits(128, 33900)),
    "constant": (ONE, False, SINGLE, ("columns", 4, True), Limits(128, 28700, 8)),
    "bfloat16": (ONE, False, HALF, ("columns", 8, False), Limits(128, 41100, 8)),
    "bfloat16-time-backward": (ONE, True, HALF, ("time", 1, False), Limits(128, 33900)),
    "bfloat16-thin-backward": (ONE, True, HALF, ("thin", 1, False), Limits(128, 33900)),
    "mixed-backward": (ONE, True, MIXED, ("columns", 8, False), Limits(128, 41100, 16)),
    "complex-backward": (ONE, True, COMPLEX, ("columns", 2, False), Limits(128, 28700, 12)),
    "matrices": (ONE, False, MATRIX, ("columns", 2, False), Limits(128, 32800, 12)),
    "matrices-time-backward": (ONE, True, MATRIX, ("time", 1, False), Limits(128, 24600)),
    "matrices-serial-backward": ("serial", True, MATRIX, None, Limits(96)),
    "matrices-carries": ("carries", True, MATRIX, None, Limits(64)),
    "serial_paper": ("serial_paper", True, SINGLE, None, Limits(64)),
    "serial": ("serial", False, SINGLE, None, Limits(104)),
    "serial-backward": ("serial", True, SINGLE, None, Limits(176)),
    "reduce": ("reduce", True, SINGLE, None, Limits(64)),
    "carries": ("carries", True, SINGLE, None, Limits(64)),
    "apply": ("apply", True, SINGLE, None, Limits(64)),
}
# Every kernel for one capability; for the others, the kernels that need most.
BUILDS = [(case, (9, 0)) for case in CASES]
BUILDS += [("time-backward", (7, 5)), ("columns", (8, 0)), ("columns-backward", (10, 0))]
BUILDS += [("bfloat16-time-backward", capability) for capability in ((7, 5), (8, 0), (10, 0))]
IDS = [f"{case}-sm_{major}{minor}" for case, (major, minor) in BUILDS]


def ptx_of(kernel, capability):
    from lrscan.cuda import machine_code

    return machine_code.ptx(kernel, capability)


def kernel_of(case: str, **changes):
    from lrscan.cuda import blocked, serial
    from lrscan.cuda.single_pass import kernel as single_pass
    from lrscan.cuda.single_pass.tiles import Layout
    from lrscan.cuda.steps import Variant

    algorithm, backward, kinds, layout, _ = CASES[case]
    algebra = MATRICES if kinds == MATRIX else SCALAR
    variant = Variant(backward, *kinds, True, backward, algebra)._replace(**changes)
    if algorithm == "single_pass":
        return single_pass.kernel(variant, Layout(*layout))
    if algorithm in ("serial", "serial_paper"):
        return getattr(serial, f"{algorithm}_kernel")(variant)
    return blocked.kernels(variant)[("reduce", "carries", "apply").index(algorithm)]


@pytest.fixture(autouse=True)
def compilers(request):
    """Skip a test of machine code if the assembler or the disassembler is missing."""
    if "capability" not in request.fixturenames:
        return
    pytest.importorskip("numba.cuda")
    if PTXAS is None or NVDISASM is None:
        pytest.skip("the wheels nvidia-cuda-nvcc and nvidia-cuda-nvdisasm bring ptxas and nvdisasm")


@pytest.mark.parametrize(("case", "capability"), BUILDS, ids=IDS)
def test_machine_code_is_within_its_limits(case, capability):
    code, limits = build(case, capability), CASES[case][-1]
    assert code.spilled == 0
    assert code.count(r"(LDL|STL)") == 0, "local memory"
    assert code.registers <= limits.registers
    assert code.shared <= limits.shared
    assert code.count(r"LDG.*\.128") >= limits.wide
    assert code.count(r"(D(ADD|MUL|FMA|SETP|MNMX)|F2F\.\w*64)") == 0, "double precision"


@pytest.mark.parametrize(("case", "capability"), BUILDS, ids=IDS)
def test_a_kernel_takes_the_numbers_that_a_launch_packs(case, capability):
    from lrscan.cuda.steps import NUMBERS

    count = NUMBERS + len(kernel_of(case).sizing._fields)
    assert build(case, capability).parameters == ["u64"] * count


def polls(ops: list[tuple[int, str, str]]) -> tuple[int, int]:
    """Return (loads of shared words, number of them inside a loop of a few instructions)."""
    found = [at for at, op, _ in ops if re.match(r"LDG.*64.*STRONG\.GPU", op)]
    targets = [(at, re.search(r"(\d+)\s*$", rest)) for at, op, rest in ops if op.startswith("BRA")]
    loops = [(int(to[1]), at) for at, to in targets if to and 0 < at - int(to[1]) <= 16 * 16]
    return len(found), sum(any(start <= at <= end for start, end in loops) for at in found)


@pytest.mark.parametrize(("case", "capability"), BUILDS, ids=IDS)
def test_every_poll_is_inside_its_loop(case, capability):
    loads, looped = polls(build(case, capability).ops)
    if CASES[case][0] == "single_pass":
        # Each poll compiles to a load before its loop and the same load in the loop.
        assert looped == loads // 2 >= 3
        # P and R of a map are loaded together: there is no branch between the first two loads.
        names = [op for _, op, _ in build(case, capability).ops]
        asked = [at for at, op in enumerate(names) if re.match(r"LDG.*STRONG\.GPU", op)]
        first, second = asked[:2]
        assert not any(op.startswith("BRA") for op in names[first:second])
    else:
        assert loads == 0


@pytest.mark.parametrize(("case", "capability"), BUILDS, ids=IDS)
def test_a_word_is_stored_by_one_instruction(case, capability):
    """The flag and the value arrive together; otherwise a fence would be needed between them."""
    stores = [op for _, op, _ in build(case, capability).ops if re.match(r"ST.*STRONG\.GPU", op)]
    assert all(re.match(r"STG.*\.64\.", op) for op in stores), set(stores)
    assert bool(stores) == (CASES[case][0] == "single_pass")


@pytest.mark.parametrize("volatile", [True, False])
@pytest.mark.parametrize("capability", [(9, 0)], ids=["sm_90"])
def test_a_poll_hoisted_out_of_its_loop_would_be_caught(capability, volatile, monkeypatch):
    from llvmlite import ir
    from numba import cuda

    from lrscan.cuda import launch
    from lrscan.cuda.memory import device

    assembly = ir.InlineAsm

    def marked(kind, text, constraints, side_effect):
        return assembly(kind, text, constraints.removesuffix(",~{memory}"), side_effect=volatile)

    monkeypatch.setattr(device.ir, "InlineAsm", marked)
    load_words, store_words, complete = device.load_words, device.store_words, device.complete

    class Address(NamedTuple):
        words: int

    def spin(rows, extents, sizing):
        if cuda.grid(1) == 0:
            words = load_words(sizing.words, 1)
            while not complete(words):
                words = load_words(sizing.words, 1)
            store_words(sizing.words + 8, words)

    kernel = launch.Kernel(spin, "spin", Address, 32)
    listing = disassemble(ptx_of(kernel, capability), capability)[1]
    assert (polls(read_listing(listing))[1] == 1) == volatile


@pytest.mark.parametrize("capability", [(9, 0)], ids=["sm_90"])
def test_double_precision_shows_in_the_code_that_uses_it(capability):
    kernel = kernel_of("serial_paper", a="float64", x="float64", start="float64")
    assert ".f64" in ptx_of(kernel, capability)


def test_kernels_in_the_simulator(simulation):
    process, log = simulation
    assert process.wait() == 0, log.read_text()
    assert re.search(r"\d+ passed", log.read_text())
