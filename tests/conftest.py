"""Settings of all tests, in addition to those in pyproject.toml."""

import os
import signal
from pathlib import Path

# Two test processes share the cores. With several threads each, threads that wait for each other
# would lose whole time slices. Tests of threads set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

# Files that take long, and what they do, longest first. They begin first, and `make test-fast`
# leaves them out.
SLOW = {
    "test_suite.py": "every notebook is executed",
    "core/test_operator.py": "the operator in every dtype and layout, and its derivatives",
    "cuda/test_compiled_code.py": "CUDA kernels in the simulator, and their machine code",
    "distributed/test_distributed.py": "sequences split over four processes",
    "cpu/test_algebra.py": "CPU kernels of another algebra",
    "core/test_mutations.py": "deliberate mistakes are caught",
    "runner/test_runner.py": "notebooks that fail, hang or kill their kernel",
    "onnx/test_onnx.py": "exported models in onnxruntime",
    "campaign/test_campaign.py": "rehearsals of a campaign",
    "experiments/test_training_runs.py": "short training runs, resumed",
    "nn/test_compile.py": "models under torch.compile",
    "core/test_broadcasting.py": "inputs that broadcast",
    "core/test_dispatch.py": "the operator under torch.compile",
    "test_types.py": "mypy",
    "runner/test_cache.py": "what a changed file makes run again",
    "runner/test_limits.py": "many notebooks, long outputs, odd encodings",
    "distributed/test_split_models.py": "models split over processes",
    "nn/test_checkpointing.py": "the memory of long sequences",
    "core/test_packed.py": "packed sequences",
    "distributed/test_faults.py": "ranks that die, disagree or are late",
    "learn/test_editions.py": "lessons where only the package is installed",
    "campaign/test_warmup.py": "kernels compiled in advance",
    "experiments/test_training_steps.py": "training steps, measured in pieces",
    "experiments/test_resume.py": "measurements in pieces",
    "core/test_torch_library.py": "saved programs, several threads, forks",
    "train/test_train.py": "training, killed and resumed",
    "distributed/test_dtensor.py": "DTensors over processes",
    "test_guide.py": "the code of the guide",
    "test_reference.py": "the examples of the reference",
    "core/test_transforms.py": "torch.func and vmap",
    "cli/test_cli.py": "the commands in processes of their own",
    "evidence/test_figures.py": "committed figures, drawn again",
    "experiments/test_scaling.py": "measurements over processes",
    "nn/test_equations.py": "every model against its equations",
    "runner/test_verify.py": "figures and records, changed by a byte",
    "evidence/test_build_folder.py": "folders that cannot be written",
    "cpu/test_lanes_over_time.py": "CPU kernels with lanes over time",
}

# Keep matplotlib from opening windows, whichever backend it would choose on this machine.
os.environ["MPLBACKEND"] = "Agg"


# Subprocesses of a test must receive SIGHUP, even if nohup runs the tests and ignores it.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # subprocesses do not inherit a handler


@pytest.fixture(autouse=True)
def _seed():
    """Make the random numbers of a test independent of the tests before it."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """Put the longest files first, and mark them as slow."""
    here, order = Path(__file__).parent, list(SLOW)
    rank = {}
    for item in items:
        name = item.path.relative_to(here).as_posix()
        rank[item] = order.index(name) if name in SLOW else len(order)
        if name in SLOW:
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank.__getitem__)


def pytest_terminal_summary(terminalreporter, config):
    """Say what `make test-fast` leaves out."""
    if "not slow" in config.option.markexpr:
        terminalreporter.section("left out, see make test")
        for name, what in SLOW.items():
            terminalreporter.write_line(f"tests/{name}: {what}")
