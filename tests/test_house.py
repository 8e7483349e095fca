"""Imports follow the layers of lrscan, and private names of others are used in few modules."""

import ast
from pathlib import Path

import pytest

import lrscan
from lrscan.core import dispatch

PACKAGE = Path(lrscan.__file__).parent
# The layers, from the bottom up; "" is lrscan/__init__.py. Packages in one layer ("rooms" on one
# "floor") do not import each other.
FLOORS = (
    ("core",),
    ("cpu", "cuda", "distributed", "evidence"),
    ("nn", "onnx", "runner"),
    ("tasks",),
    ("train",),
    ("", "experiments", "learn"),
    ("campaign",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def room(module):
    return ".".join(module.split(".")[1:2])


def imports(source):
    """Yield each module of lrscan that a source imports, anywhere in it, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "lrscan":
                while name not in MODULES:
                    name = name.rpartition(".")[0]
                yield name, node.lineno


ARROWS = {module: list(imports(path.read_bytes())) for module, path in MODULES.items()}


def test_every_room_has_its_floor():
    rooms = {room(module) for module in MODULES}
    assert rooms == set(FLOOR)
    assert len(rooms) <= 18 and len(FLOORS) <= 9


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    """This includes imports in functions, and those for type checkers."""
    for other, line in ARROWS[module]:
        if room(other) != room(module):
            assert FLOOR[room(other)] < FLOOR[room(module)], f"{MODULES[module]}:{line}: {other}"


def test_no_modules_import_each_other_in_a_circle():
    done, path = set(), []

    def walk(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other, _ in ARROWS[module]:
                # A package that re-exports names of its own modules is not a circle.
                if other != module and not module.startswith(f"{other}."):
                    walk(other)
            done.add(path.pop())

    for module in MODULES:
        walk(module)


def test_an_import_within_a_function_is_noticed():
    text = "def f():\n    from lrscan.nn import layer\n    import lrscan.cpu.scan, torch\n"
    assert list(imports(text)) == [("lrscan.nn.layer", 2), ("lrscan.cpu.scan", 3)]


@pytest.mark.parametrize(
    "name", [*(one.prepare for one in dispatch.BACKENDS.values()), dispatch.DTENSOR_RULE]
)
def test_functions_that_are_looked_up_by_name_exist(name):
    module, _, function = name.partition(":")
    body = ast.parse(MODULES[module].read_bytes()).body
    assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}


# The only modules that may use private names of a package ("doors"), by that package.
DOORS = {
    "torch": {"lrscan.core.torch_internals"},
    "numba.cuda": {"lrscan.cuda.numba_cuda", "lrscan.learn.machines.simulator"},
    "cuda.core": {"lrscan.cuda.numba_cuda"},
}
# Modules of numba.cuda that are not part of its public interface.
NOT_PUBLIC = {"codegen", "compiler", "core", "cudadrv", "dispatcher", "simulator", "target"}


def outside_names(source):
    """Yield each name of another package that a source uses, in full, with its line."""
    tree, stands_for = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                stands_for[name] = alias.name if alias.asname else name
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                stands_for[alias.asname or alias.name] = full
                yield full, node.lineno
    for node in ast.walk(tree):
        parts, one = [], node
        while isinstance(one, ast.Attribute):
            parts, one = [one.attr, *parts], one.value
        if parts and isinstance(one, ast.Name) and one.id in stands_for:
            yield ".".join([stands_for[one.id], *parts]), node.lineno


def door_of(name):
    """Return the package in DOORS to which a private name belongs; None if the name is public."""
    parts = name.split(".")
    private = any(part.startswith("_") and not part.startswith("__") for part in parts)
    if parts[0] == "torch":
        return "torch" if private else None
    if parts[:2] == ["cuda", "core"]:
        return "cuda.core"
    if parts[:2] == ["numba", "cuda"]:
        return "numba.cuda" if private or NOT_PUBLIC & set(parts[2:3]) else None
    return None


@pytest.mark.parametrize("module", MODULES)
def test_private_names_of_other_packages_are_used_through_a_door(module):
    for name, line in outside_names(MODULES[module].read_bytes()):
        door = door_of(name)
        assert door is None or module in DOORS[door], f"{MODULES[module]}:{line}: {name}"


@pytest.mark.parametrize(
    "text, name",
    [
        ("import torch\ntorch.cuda._sleep(1)", "torch.cuda._sleep"),
        ("from torch.autograd import forward_ad as ad\nad._x", "torch.autograd.forward_ad._x"),
        ("def f():\n    from torch._C import _dispatch", "torch._C._dispatch"),
        ("from numba.cuda import dispatcher", "numba.cuda.dispatcher"),
        ("from numba import cuda\ncuda.simulator.kernel", "numba.cuda.simulator.kernel"),
        ("from cuda.core import Linker", "cuda.core.Linker"),
    ],
)
def test_a_private_name_is_noticed(text, name):
    assert name in [found for found, _ in outside_names(text) if door_of(found)]


def test_every_door_is_needed():
    for module in set().union(*DOORS.values()):
        names = [name for name, _ in outside_names(MODULES[module].read_bytes())]
        assert any(map(door_of, names)), f"{module} uses no private names"


def test_no_two_classes_have_one_name():
    places = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
