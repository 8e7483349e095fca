"""Which notebooks there are, and what their parameters may be. No kernel is started."""

import json

import pytest
from projects import make_project, write_notebook

from lrscan import notebooks
from lrscan.notebooks import ParameterError

TYPED = """
seed = 0          # a comment
rate: float = 0.5
device = "auto"
measure = True
lengths = [16, 256]
dtypes = ["float32"]
mixed = [1, "all"]
"""


@pytest.fixture
def project(tmp_path):
    root = make_project(tmp_path / "project")
    write_notebook(root, "reproduce/01_first", "1", parameters=TYPED)
    write_notebook(root, "learn/02_second", "1")
    write_notebook(root, "learn/01_first", "1")
    write_notebook(root, "learn/.hidden", "1")
    return root


@pytest.fixture
def every(project):
    return notebooks.discover(project)


def profile(project, every, toml, name="quick"):
    (project / "notebooks" / "profiles.toml").write_text(toml)
    return notebooks.load_profile(project, name, every)


def names(selected):
    return [notebook.name for notebook in selected]


def test_lessons_come_first_and_in_order(every):
    assert names(every) == ["learn/01_first", "learn/02_second", "reproduce/01_first"]


def test_defaults_are_the_literals_of_the_tagged_cell(every):
    assert every[2].defaults == {
        "seed": 0, "rate": 0.5, "device": "auto", "measure": True,
        "lengths": [16, 256], "dtypes": ["float32"], "mixed": [1, "all"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("prefixes", "selected"),
    [
        ([], ["learn/01_first", "learn/02_second", "reproduce/01_first"]),
        (["learn"], ["learn/01_first", "learn/02_second"]),
        (["reproduce", "learn/01"], ["learn/01_first", "reproduce/01_first"]),
        (["notebooks/learn/02_second.ipynb"], ["learn/02_second"]),
    ],
)
def test_prefixes_select_in_the_order_of_the_notebooks(every, prefixes, selected):
    assert names(notebooks.select(every, prefixes)) == selected


def test_a_prefix_that_selects_nothing_is_refused(every):
    with pytest.raises(ParameterError, match="'learn/09'.*learn/01_first"):
        notebooks.select(every, ["learn/01", "learn/09"])


@pytest.mark.parametrize(
    "source",
    ["n = 2**20", "import os", "a = b = 1", "a, b = 1, 2", "n = None", "n = []", "n = {}",
     "n = (1, 2)", "n += 1", "n: int", "n =", "%matplotlib inline", "print(1)", "n = [None]"],
)  # fmt: skip
def test_a_cell_of_parameters_with_more_than_literals_is_refused(tmp_path, source):
    root = make_project(tmp_path)
    write_notebook(root, "learn/01_bad", parameters=source)
    with pytest.raises(ParameterError, match="learn/01_bad"):
        notebooks.discover(root)


def test_two_cells_of_parameters_are_refused(tmp_path):
    root = make_project(tmp_path)
    write_notebook(root, "learn/01_bad", "n = 1", tags=("parameters",))
    with pytest.raises(ParameterError, match="learn/01_bad: 2 cells"):
        notebooks.discover(root)


@pytest.mark.parametrize("text", ["not json", "[]", "{}", json.dumps({"cells": [{}]})])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    root = make_project(tmp_path)
    (root / "notebooks" / "learn").mkdir()
    (root / "notebooks" / "learn" / "01_bad.ipynb").write_text(text)
    with pytest.raises(ParameterError, match="learn/01_bad: not a notebook"):
        notebooks.discover(root)


def test_a_profile_gives_common_and_own_values(project, every):
    loaded = profile(
        project,
        every,
        '[quick]\nseed = 7\ntimeout_s = 60\n[quick."reproduce/01_first"]\n'
        "seed = 8\nrate = 2\nlengths = [1]\nmixed = ['x', 3]\n",
    )
    assert loaded.timeout_s == 60
    assert loaded.parameters["learn/01_first"] == {"seed": 7, "device": "auto"}
    own = loaded.parameters["reproduce/01_first"]
    assert (own["seed"], own["lengths"], own["mixed"]) == (8, [1], ["x", 3])
    assert own["rate"] == 2.0 and isinstance(own["rate"], float)
    assert own["dtypes"] == ["float32"]  # not given: the default


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[full]\n", "no profile 'quick'; there are: full"),
        ("[quick\n", "profiles.toml"),
        ('[quick."learn/1"]\n', "no notebook is called 'learn/1'"),
        ("[quick]\nsed = 1\n", "learn/01_first has no parameter 'sed'; it has: seed, device"),
        ("[quick]\nrate = 1.0\n", "learn/01_first has no parameter 'rate'"),
        ("[quick]\nseed = 1.5\n", "learn/01_first: parameter seed is 1.5, expected int"),
        ("[quick]\nseed = true\n", "parameter seed is True, expected int"),
        ("[quick]\ndevice = 0\n", "parameter device is 0, expected str"),
        ('[quick."reproduce/01_first"]\nmeasure = 1\n', "measure is 1, expected bool"),
        ('[quick."reproduce/01_first"]\nrate = "1"\n', "rate is '1', expected float"),
        ('[quick."reproduce/01_first"]\nrate = true\n', "rate is True, expected float"),
        ('[quick."reproduce/01_first"]\nlengths = 3\n', "lengths is 3, expected list of int"),
        ('[quick."reproduce/01_first"]\nlengths = [1, "a"]\n', "expected list of int"),
        ('[quick."reproduce/01_first"]\nmixed = [1.5]\n', "expected list of int or str"),
        ('[quick."reproduce/01_first"]\nseed = {a = 1}\n', "expected int"),
        ("[quick]\ntimeout_s = 0\n", "timeout_s is 0"),
        ('[quick]\ntimeout_s = "1"\n', "timeout_s is '1'"),
    ],
)
def test_a_wrong_profile_is_refused_by_name(project, every, toml, message):
    with pytest.raises(ParameterError, match=message):
        profile(project, every, toml)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("seed=3", 3),
        ("seed=-3", -3),
        ("rate=1", 1.0),
        ("rate=1e-3", 1e-3),
        ("measure=false", False),
        ("measure=False", False),
        ("lengths=[1, 2]", [1, 2]),
        ("lengths=1,2", [1, 2]),
        ("dtypes=['a', \"b\"]", ["a", "b"]),
        ("device=cpu", "cpu"),
        ("device=3", "3"),
        ("device=a=b", "a=b"),
        ("device=", ""),
    ],
)
def test_a_value_from_the_command_line_has_its_parameters_type(every, assignment, value):
    defaults = {notebook.name: notebook.defaults for notebook in every}
    given = notebooks.override(defaults, every[2:], [assignment])["reproduce/01_first"]
    name = assignment.partition("=")[0]
    assert given[name] == value and type(given[name]) is type(value)
    assert given == defaults["reproduce/01_first"] | {name: value}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", "NAME=VALUE, not 'seed'"),
        ("rate=1", "learn/01_first has no parameter 'rate'"),
        ("seed=abc", "learn/01_first: parameter seed is 'abc', expected int"),
        ("seed=1.0", "seed is 1.0, expected int"),
        ("seed=__import__('os')", "expected int"),
        ("seed=1\nother = 2", "expected int"),
        ("seed=", "seed is '', expected int"),
        ("seed=" + "(" * 10_000, "expected int"),
    ],
    ids=["no value", "not in all", "text", "float", "code", "two lines", "empty", "deep"],
)
def test_a_wrong_assignment_is_refused_by_name(every, assignment, message):
    defaults = {notebook.name: notebook.defaults for notebook in every}
    with pytest.raises(ParameterError, match=message):
        notebooks.override(defaults, every, [assignment])


def test_a_link_out_of_the_project_is_not_run(tmp_path):
    elsewhere = make_project(tmp_path / "elsewhere")
    write_notebook(elsewhere, "learn/01_foreign", "1")
    root = make_project(tmp_path / "project")
    (root / "notebooks" / "learn").symlink_to(elsewhere / "notebooks" / "learn")
    with pytest.raises(ParameterError, match="learn/01_foreign is a link to a file outside"):
        notebooks.discover(root)


@pytest.mark.parametrize(
    ("source", "value", "measures"),
    [
        ("if measure:\n    1", True, True),
        ("if measure:\n    1", False, False),
        ("print('measured')", True, False),
    ],
    ids=["asks", "told not to", "never asks"],
)
def test_a_notebook_measures_if_it_asks_whether_it_should(tmp_path, source, value, measures):
    root = make_project(tmp_path)
    write_notebook(root, "learn/01", source, parameters="measure = True")
    (notebook,) = notebooks.discover(root)
    assert notebook.measures({"measure": value}) is measures
