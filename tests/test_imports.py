"""What may import what: no cycle in the whole package, no room that imports what it may not, no import later than it has to be.

The files are read, not imported. An import inside a function, or for type checkers alone, counts as much as any.
"""

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "raremem": ROOT / "core",
    "raremem.adapters": ROOT / "adapters",
    "raremem.reference": ROOT / "reference",
    "raremem.benchmarks": ROOT / "benchmarks",
}
NEEDED = {"numpy", "safetensors"}
"""What is always installed."""

CORE = {"core"}
COMMAND = {"core", "command"}
"""What tells, and writes whole files, as the command does."""
MAY_IMPORT = {
    "core": set(),
    "adapters": CORE,
    "reference": CORE,
    "reference.laws": CORE | {"reference"},
    "reference.faults": CORE | {"reference.laws", "reference.mutation"},
    "reference.conformance": CORE | {"reference.laws"},
    "reference.mutation": CORE | {"reference.laws", "adapters"},
    "benchmarks": CORE,
    "benchmarks.task": set(),
    "benchmarks.registry": {"benchmarks.task"},
    "benchmarks.data": CORE | {"benchmarks"},
    "benchmarks.report": {"command", "benchmarks.task"},
    "benchmarks.online": CORE,
    "benchmarks.training": COMMAND | {"adapters", "benchmarks", "benchmarks.data"},
    "benchmarks.cost": COMMAND | {"adapters"},
    "benchmarks.live_index": CORE | {"benchmarks", "benchmarks.data", "benchmarks.cost"},
    "benchmarks.tasks": CORE
    | {"adapters", "benchmarks", "benchmarks.task", "benchmarks.report", "benchmarks.data", "benchmarks.training"}
    | {"benchmarks.online", "benchmarks.cost", "benchmarks.live_index"},
    "benchmarks.inspection": COMMAND | {"adapters", "benchmarks", "benchmarks.task", "benchmarks.report", "benchmarks.data"},
    "benchmarks.demo": COMMAND
    | {"benchmarks", "benchmarks.task", "benchmarks.report", "benchmarks.data", "benchmarks.training", "benchmarks.online"},
    "benchmarks.runner": COMMAND
    | {"benchmarks", "benchmarks.task", "benchmarks.registry", "benchmarks.data", "benchmarks.report"},
    "command": CORE
    | {"reference.mutation", "benchmarks.task", "benchmarks.data", "benchmarks.registry"}
    | {"benchmarks.runner", "benchmarks.demo", "benchmarks.inspection"},
}
"""For each room what else it may import. A room is the longest of these names that a module's name begins with."""
ORACLE = {"raremem.reference.oracle", "raremem.reference.rules"}
ITS_CORE = {"raremem.backend", "raremem.config", "raremem.errors", "raremem.state", "raremem.validation"}
"""All of core that the oracle may import: none of the rules that it is to check."""
IN_A_TRIAL = ("raremem.reference.mutation.trial", "raremem.reference.mutation.players")
"""What changes the code under trial imports it only in the process that tries the change."""


@dataclass(frozen=True)
class Import:
    """Of which module what is imported, and where: late is inside a function."""

    module: str
    imported: str
    late: bool


def module_name(room, path):
    parts = path.relative_to(FOLDERS[room]).with_suffix("").parts
    return ".".join([room, *(part for part in parts if part != "__init__")])


@cache
def modules():
    """The file of each module, under the name that the wheel gives it."""
    return {module_name(room, path): path for room, folder in FOLDERS.items() for path in folder.rglob("*.py")}


def imports_of(name, path, known):
    """Everything that a file imports; a name that is a module itself stands for itself, and not for its package."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node, late):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(name, alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
                source = ".".join([*above, *filter(None, [child.module])])
                for alias in child.names:
                    whole = f"{source}.{alias.name}"
                    yield Import(name, whole if whole in known else source, late)
            yield from visit(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return list(visit(ast.parse(path.read_text()), False))


@cache
def imports():
    return [found for name, path in modules().items() for found in imports_of(name, path, modules())]


def room_of(name):
    inside = name.removeprefix("raremem").removeprefix(".")
    return max((room for room in MAY_IMPORT if f"{inside}.".startswith(f"{room}.")), key=len, default="core")


def cycles(edges):
    """Groups of modules of which each leads to every other (Tarjan, 1972)."""
    number, lowest, stack, groups = {}, {}, [], []

    def visit(node):
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            place = stack.index(node)
            groups.append(set(stack[place:]))
            del stack[place:]

    for node in edges:
        if node not in number:
            visit(node)
    return [group for group in groups if len(group) > 1]


def edges_of(found):
    edges = {}
    for each in found:
        edges.setdefault(each.module, set()).add(each.imported)
    return edges


@cache
def needs_an_optional_package(name):
    """Whether importing a module imports, at once or by another, what an extra brings."""
    for found in imports():
        if found.module == name and not found.late:
            root = found.imported.partition(".")[0]
            if root == "raremem":
                if needs_an_optional_package(found.imported):
                    return True
            elif root not in NEEDED | sys.stdlib_module_names:
                return True
    return False


def test_no_cycle():
    inside = [found for found in imports() if found.imported in modules()]
    assert not cycles(edges_of(inside))


def test_every_room_imports_what_it_may():
    wrong = []
    for found in imports():
        room = room_of(found.module)
        if found.imported in modules() and room_of(found.imported) not in (room, *MAY_IMPORT[room]):
            wrong.append(f"{found.module} imports {found.imported}")
    assert not wrong


def test_core_imports_numpy_and_files_only():
    roots = {found.imported.partition(".")[0] for found in imports() if room_of(found.module) == "core"}
    assert roots - sys.stdlib_module_names <= {"raremem", *NEEDED}


def test_the_oracle_imports_no_rule():
    used = {found.imported for found in imports() if found.module in ORACLE} & modules().keys()
    assert used <= ITS_CORE | ORACLE


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_every_room_of_the_table_is_there_and_its_rights_are_used(room):
    own = [found for found in imports() if room_of(found.module) == room and found.imported in modules()]
    assert any(room_of(name) == room for name in modules())
    assert {room_of(found.imported) for found in own} - {room} == MAY_IMPORT[room]


def test_what_is_imported_late_is_optional_or_the_commands():
    wrong = [
        f"{found.module} imports {found.imported} in a function"
        for found in imports()
        if found.late and found.imported in modules() and room_of(found.module) != "command"
        if not needs_an_optional_package(found.imported) and (found.module, found.imported) != IN_A_TRIAL
    ]
    assert not wrong


@pytest.mark.parametrize(
    "text", ["import raremem.b", "from raremem import b", "def f():\n    from . import b", "from .b import x"]
)
def test_that_the_reader_sees_every_kind_of_import(text, tmp_path):
    path = tmp_path / "a.py"
    path.write_text(text)
    found = imports_of("raremem.a", path, {"raremem.a", "raremem.b", "raremem"})
    assert found == [Import("raremem.a", "raremem.b", "def" in text)]
    assert cycles(edges_of([*found, Import("raremem.b", "raremem.a", True)])) == [{"raremem.a", "raremem.b"}]
