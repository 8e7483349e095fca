"""The packages of lrscan stand on floors, and imports go down only."""

import ast
from pathlib import Path

import pytest

import lrscan
from lrscan.core import dispatch

PACKAGE = Path(lrscan.__file__).parent
# From the ground up; "" is lrscan/__init__.py. Rooms on one floor do not know of each other.
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
    """The modules of lrscan that a source imports, anywhere in it, with the line of each."""
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
    """Also those within functions, and those for type checkers."""
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
                # A package that hands on names of its modules is no circle.
                if other != module and not module.startswith(f"{other}."):
                    walk(other)
            done.add(path.pop())

    for module in MODULES:
        walk(module)


def test_an_import_within_a_function_is_seen():
    text = "def f():\n    from lrscan.nn import layer\n    import lrscan.cpu.scan, torch\n"
    assert list(imports(text)) == [("lrscan.nn.layer", 2), ("lrscan.cpu.scan", 3)]


@pytest.mark.parametrize(
    "name", [*(one.prepare for one in dispatch.BACKENDS.values()), dispatch.DTENSOR_RULE]
)
def test_what_is_found_by_name_is_there(name):
    module, _, function = name.partition(":")
    body = ast.parse(MODULES[module].read_bytes()).body
    assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}
