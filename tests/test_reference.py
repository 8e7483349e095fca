"""The reference: every public name has an example in its docstring, and the example runs."""

import doctest
import inspect
import sys
from pathlib import Path

import pytest

import lrscan

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
pytest.importorskip("sphinx")  # docs/book.py imports it

import book  # noqa: E402

PUBLIC = [
    pytest.param(module, name, id=f"{module.__name__}.{name}")
    for module in book.public(lrscan)
    for name in book.names(module)
]


def test_the_reference_lists_the_main_names():
    listed = {f"{param.values[0].__name__}.{param.values[1]}" for param in PUBLIC}
    assert {"lrscan.linear_recurrence", "lrscan.nn.GILRLSTM", "lrscan.train.train"} <= listed


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_the_example_of_a_public_name_runs(module, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing = getattr(module, name)
    found = [
        test
        for test in doctest.DocTestFinder().find(thing, name, module=False, globs={})
        if test.examples
    ]
    assert found, f"add an example to the docstring of {name}"
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
    output = []
    for test in found:
        runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)
    assert inspect.isroutine(thing) or inspect.isclass(thing)
