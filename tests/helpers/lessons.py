"""The exercises of the notebooks, each with the code that has to run before it."""

import ast
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from lrscan.learn.exercises.check import Check
from lrscan.runner.catalog import Notebook, discover

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [n for n in discover(ROOT) if n.name.startswith("learn/")]


@dataclass
class Exercise:
    """A stub with its solution, the cell that checks it, and the code before both."""

    notebook: str
    name: str
    context: str
    stub: str
    solution: str
    check: str

    def run(self, source: str) -> None:
        """Define the answer in ``source`` and call the check, which prints its verdict."""
        names: dict = {}
        for text in (self.context, source, self.check):
            exec(compile(text, f"<{self.name}>", "exec"), names)


def exercises(simulated: bool) -> list[Exercise]:
    """Return the exercises of the lessons that use the CUDA simulator, or of all others."""
    found = []
    for notebook in NOTEBOOKS:
        code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
        if runs_in_simulator(notebook) != simulated:
            continue
        context = ""
        for k, cell in enumerate(code):
            if "exercise" in cell["metadata"].get("tags", []):
                solution = cell["metadata"]["solution"]
                name = next(
                    node.name
                    for node in ast.parse(solution).body
                    if isinstance(node, ast.FunctionDef)
                )
                check = code[k + 1]["source"]
                title = f"{notebook.name[6:8]}-{name}"
                found.append(
                    Exercise(notebook.name, title, context, cell["source"], solution, check)
                )
                context += f"{solution}\n"
            else:
                context += _imports(cell["source"])
    return found


def checks(*lessons: ModuleType) -> dict[str, Check]:
    """Return the checks of the modules of some lessons, keyed by names such as "03-padding"."""
    return {
        f"{lesson.__name__[-2:]}-{name}": check
        for lesson in lessons
        for name, check in vars(lesson).items()
        if isinstance(check, Check) and not name.startswith("_")
    }


def runs_in_simulator(notebook: Notebook) -> bool:
    """Return True if a lesson switches on Numba's CUDA simulator."""
    return any("import simulator" in cell["source"] for cell in notebook.cells)


def _imports(source: str) -> str:
    nodes = ast.parse(source).body
    lines = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return "".join(f"{line}\n" for line in lines)
