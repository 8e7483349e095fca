"""Imports go down only, those inside functions too, and never in a circle."""

import ast
from pathlib import Path

import pytest

import lrscan
from lrscan.core import dispatch

PACKAGE = Path(lrscan.__file__).parent
# What each room may import beside itself.
BELOW = {
    "core": set(),
    "cpu": {"core"},
    "cuda": {"core"},
    "nn": {"core", "cpu"},
    "distributed": {"core"},
    "onnx": {"core"},
    "tasks": {"core", "nn"},
    "train": {"core", "nn", "tasks", "evidence"},
}


def modules(folder):
    """Files by the names of their modules."""
    names = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(text, known):
    """The modules of ``known`` that a source imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & known


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def test_rooms_import_what_is_below_them():
    files = modules(PACKAGE)
    rooms = {room_of(module) for module in files}
    assert set(BELOW) <= rooms
    for module, path in files.items():
        room = room_of(module)
        if room not in BELOW:
            continue
        others = {room_of(other) for other in imported(path.read_text(), set(files))}
        assert others - {room, ""} <= BELOW[room], module


def test_no_modules_import_each_other():
    files = modules(PACKAGE)
    ahead = {
        module: imported(path.read_text(), set(files)) - {module, "lrscan"}
        for module, path in files.items()
        if room_of(module) in BELOW
    }
    while free := [module for module, others in ahead.items() if not others & set(ahead)]:
        for module in free:
            del ahead[module]
    assert not ahead, f"in a circle, or above one: {sorted(ahead)}"


@pytest.mark.parametrize(
    "name", [*(one.prepare for one in dispatch.BACKENDS.values()), dispatch.DTENSOR_RULE]
)
def test_what_is_found_by_name_is_there(name):
    module, _, function = name.partition(":")
    body = ast.parse(modules(PACKAGE)[module].read_text()).body
    assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_an_import_inside_a_function_is_seen():
    known = {"lrscan.nn", "lrscan.nn.layer", "lrscan.cpu.scan"}
    text = "def f():\n    from lrscan.nn import layer\n    import lrscan.cpu.scan\n"
    assert imported(text, known) == {"lrscan.nn.layer", "lrscan.cpu.scan"}
