"""The operators are registered once lrscan and torch are imported, in whichever order."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrscan import linear_recurrence
from lrscan.nn import GILR

ROOT = Path(__file__).parents[2]
ORDERS = {
    "torch first": "import torch, lrscan",
    "lrscan first": "import lrscan, torch",
    "torch looked up": "import lrscan, importlib.util as u; u.find_spec('torch'); import torch",
    "modules of lrscan first": "import lrscan.core.sweep, lrscan.core.checks, torch",
    "another module of lrscan": "import lrscan.core.autograd, torch",
    "a module of torch": "import lrscan, torch.nn",
}


def words_printed_by(script, *arguments):
    command = [sys.executable, "-W", "error::UserWarning", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_saved_programs_load_whichever_package_was_imported_first(tmp_path):
    model, x = GILR(3, 4), torch.randn(5, 2, 3)
    exported, traced = tmp_path / "m.pt2", tmp_path / "m.pt"
    torch.export.save(torch.export.export(model, (x,)), exported)
    torch.jit.save(torch.jit.trace(linear_recurrence, (x.sigmoid(), x)), str(traced))
    expected = [model(x)[0].sum().item(), linear_recurrence(x.sigmoid(), x).sum().item()]
    for order in list(ORDERS.values())[:2]:
        script = (
            f"import sys; {order}\n"
            "program = torch.export.load(sys.argv[1]).module()\n"
            "x = torch.load(sys.argv[3])\n"
            "scripted = torch.jit.load(sys.argv[2])\n"
            "print(program(x)[0].sum().item(), scripted(x.sigmoid(), x).sum().item())\n"
        )
        torch.save(x, tmp_path / "x.pt")
        found = [
            float(word) for word in words_printed_by(script, exported, traced, tmp_path / "x.pt")
        ]
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_operators_are_registered_in_every_order_and_the_hook_is_removed(order):
    script = (
        f"{order}\n"
        "import sys\n"
        "torch.ops.lrscan.linear_recurrence.default, torch.ops.lrscan.linear_recurrence_backward\n"
        "print(any('lrscan' in type(finder).__module__ for finder in sys.meta_path))\n"
        "print('numba' in sys.modules)\n"
    )
    assert words_printed_by(script) == ["False", "False"]


def test_the_error_of_a_failing_torch_import_is_shown():
    script = (
        "import sys, lrscan\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ImportError('no such torch')\n"
        "sys.meta_path.insert(1, Broken())\n"
        "try: import torch\n"
        "except ImportError as error: print(str(error).replace(' ', '-'))\n"
    )
    assert words_printed_by(script) == ["no-such-torch"]
