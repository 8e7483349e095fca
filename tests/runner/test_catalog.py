"""The catalog lists notebooks and checks their parameters. No kernel is started."""

import pytest
from broken_notebooks import BROKEN, break_notebook
from projects import make_project, write_notebook

from lrscan.runner import catalog
from lrscan.runner.catalog import ParameterError

TYPED = """
seed = 0          # a comment
rate: float = 0.5
rates = [0.5]
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
    return catalog.discover(project)


def profile(project, every, toml, name="quick"):
    (project / "notebooks" / "profiles.toml").write_text(toml)
    return catalog.load_profile(project, name, every)


def names(selected):
    return [notebook.name for notebook in selected]


def test_lessons_come_first_and_in_order(every):
    assert names(every) == ["learn/01_first", "learn/02_second", "reproduce/01_first"]


@pytest.mark.parametrize(
    ("opening", "title", "summary"),
    [
        ("# 1. A loop\n\n*Why it\nwaits.*\n\nMore *text*.", "1. A loop", "Why it waits."),
        ("# A loop\n\n**Claim C1** and *more*.", "A loop", ""),
        ("# A loop", "A loop", ""),
        ("No title", "learn/01", ""),
    ],
)
def test_title_and_summary_are_read_from_the_first_cell(opening, title, summary):
    cells = [{"cell_type": "markdown", "source": opening}]
    notebook = catalog.Notebook("learn/01", None, cells, {})
    assert (notebook.title, notebook.summary) == (title, summary)


def test_defaults_are_the_literals_of_the_tagged_cell(every):
    assert every[2].defaults == {
        "seed": 0,
        "rate": 0.5,
        "rates": [0.5],
        "device": "auto",
        "measure": True,
        "lengths": [16, 256],
        "dtypes": ["float32"],
        "mixed": [1, "all"],
    }


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
    assert names(catalog.select(every, prefixes)) == selected


def test_a_prefix_that_selects_nothing_is_refused(every):
    with pytest.raises(ParameterError, match="'learn/09'.*learn/01_first"):
        catalog.select(every, ["learn/01", "learn/09"])


def broken(root, name="learn/01_bad"):
    """Return why a notebook cannot run."""
    return {notebook.name: notebook.broken for notebook in catalog.discover(root)}[name]


@pytest.mark.parametrize(
    "source",
    [
        "n = 2**20",
        "import os",
        "a = b = 1",
        "a, b = 1, 2",
        "n = None",
        "n = []",
        "n = {}",
        "n = (1, 2)",
        "n += 1",
        "n: int",
        "n =",
        "%matplotlib inline",
        "print(1)",
        "n = [None]",
        "n = 1e999",
        "n = [[-1e999]]",
        "n = '\\ud800'",
        "n = 0x" + 5000 * "f",
        "n = " + 999 * "(" + 999 * ")",
    ],
)
def test_a_cell_of_parameters_with_anything_but_storable_literals_is_refused(tmp_path, source):
    root = make_project(tmp_path)
    write_notebook(root, "learn/01_bad", parameters=source)
    assert "the cell of parameters may hold only NAME = literal" in broken(root)


def test_two_cells_of_parameters_are_refused(tmp_path):
    root = make_project(tmp_path)
    write_notebook(root, "learn/01_bad", "n = 1", tags=("parameters",))
    assert broken(root) == "2 cells are tagged parameters, expected one"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_notebook_is_named_and_does_not_affect_the_others(project, kind):
    contents, message = BROKEN[kind]
    break_notebook(project / "notebooks" / "learn" / "01_bad.ipynb", contents)
    assert message in broken(project) and len(broken(project)) < 300
    assert names(catalog.discover(project)) == [
        "learn/01_bad",
        "learn/01_first",
        "learn/02_second",
        "reproduce/01_first",
    ]
    every = catalog.discover(project)
    loaded = profile(project, every, '[quick]\nseed = 7\n[quick."learn/01_bad"]\nseed = 8\n')
    assert loaded.parameters["learn/01_bad"] == {}
    given = catalog.override(loaded.parameters, every, ["seed=9"])
    assert {name: values.get("seed") for name, values in given.items()} == {
        "learn/01_bad": None,
        "learn/01_first": 9,
        "learn/02_second": 9,
        "reproduce/01_first": 9,
    }
    assert catalog.whole(every[1]) is every[1]
    with pytest.raises(ParameterError, match="learn/01_bad is broken: "):
        catalog.whole(every[0])


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
        ("quick = 3\n[full]", "no profile 'quick'; there are: full"),
        ("[quick]\nseed = " + 5000 * "9", "profiles.toml: "),
        ("[quick]\nseed = " + 9999 * "[", "profiles.toml: "),
        ("[quick]\nseed = 2026-01-31\n", "seed is datetime.date.*expected int"),
        ('[quick."reproduce/01_first"]\nrate = nan\n', "rate is nan, which JSON cannot represent"),
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
    given = catalog.override(defaults, every[2:], [assignment])["reproduce/01_first"]
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
        ("seed=" + "[" * 10_000, "expected int"),
    ],
    ids=["no value", "not in all", "text", "float", "code", "two lines", "empty", "deep", "deeper"],
)
def test_a_wrong_assignment_is_refused_by_name(every, assignment, message):
    defaults = {notebook.name: notebook.defaults for notebook in every}
    with pytest.raises(ParameterError, match=message):
        catalog.override(defaults, every, [assignment])


@pytest.mark.parametrize(
    "assignment",
    [
        "rate=nan",
        "rate=inf",
        "rate=-inf",
        "rate=1e999",
        "rates=[0.5, nan]",
        "rates=[-1e999]",
        "rate=1" + 400 * "0",
        "rate=0x" + 5000 * "f",
        "seed=0x" + 5000 * "f",
        "seed=" + 5000 * "9",
        "lengths=[0x" + 5000 * "f" + "]",
        "device=\udce4",
        "dtypes='\\ud800',",
        "seed=2026-01-31",
        "rate=07:32:00",
        "rates=[2026-01-31T07:32:00Z]",
        "lengths={1, 2}",
        "lengths={a = 1}",
        "lengths={'a': 1}",
        "seed=None",
        "rate=1j",
        "dtypes=[b'x']",
    ],
    ids=lambda text: text[:24].encode("ascii", "replace").decode(),
)
def test_a_value_that_json_cannot_represent_is_refused_by_its_parameters_name(every, assignment):
    name = assignment.partition("=")[0]
    defaults = {notebook.name: notebook.defaults for notebook in every}
    with pytest.raises(ParameterError, match=f"reproduce/01_first: parameter {name} is ") as error:
        catalog.override(defaults, every[2:], [assignment])
    assert len(str(error.value)) < 300


def test_a_link_out_of_the_project_is_not_run(tmp_path):
    elsewhere = make_project(tmp_path / "elsewhere")
    write_notebook(elsewhere, "learn/01_foreign", "1")
    root = make_project(tmp_path / "project")
    (root / "notebooks" / "learn").symlink_to(elsewhere / "notebooks" / "learn")
    assert "a link to a file outside notebooks/" in broken(root, "learn/01_foreign")


@pytest.mark.parametrize(
    ("source", "value", "measures"),
    [
        ("if measure:\n    1", True, True),
        ("if measure:\n    1", False, False),
        ("print('measured')", True, False),
    ],
    ids=["asks", "measure-is-false", "never asks"],
)
def test_a_notebook_measures_if_it_reads_the_parameter_and_that_is_true(
    tmp_path, source, value, measures
):
    root = make_project(tmp_path)
    write_notebook(root, "learn/01", source, parameters="measure = True")
    (notebook,) = catalog.discover(root)
    assert notebook.measures({"measure": value}) is measures
