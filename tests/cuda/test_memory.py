"""The two bodies of memory have the same names."""

import ast
from pathlib import Path

import pytest

pytest.importorskip("numba.cuda")

from lrscan.cuda import memory  # noqa: E402


def names(body):
    """(what its ``__all__`` lists, the functions that it has)"""
    tree = ast.parse(Path(memory.__file__).with_name(f"{body}.py").read_bytes())
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
