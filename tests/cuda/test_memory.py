"""The two implementations of memory, for a GPU and for the simulator, have the same names."""

import ast
from pathlib import Path

import pytest

pytest.importorskip("numba.cuda")

from lrscan.cuda import memory  # noqa: E402


def names(implementation):
    """Return (the names in ``__all__``, the functions that it defines or imports)."""
    tree = ast.parse(Path(memory.__file__).with_name(f"{implementation}.py").read_bytes())
    (listed,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("lrscan.cuda.memory."):
            found |= {alias.name for alias in node.names}
    return listed, found


def test_a_gpu_and_the_simulator_have_the_same_names():
    device, simulator = names("device"), names("simulator")
    assert device[0] == simulator[0] and set(device[0]) <= device[1] & simulator[1]
    assert all(f"    {name}(" in memory.__doc__ for name in device[0])
