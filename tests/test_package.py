"""What is imported, what is installed, and what the wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "adapters", "reference", "benchmarks")
LOADED = (
    "import sys; print([name for name in ('torch', 'jax', 'flax', 'annoy', 'hypothesis', 'matplotlib') if name in sys.modules])"
)


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, **options).stdout


def test_import_loads_no_framework():
    assert python("-c", f"import raremem; {LOADED}").strip() == "[]"


def test_that_test_can_fail():
    assert python("-c", f"import raremem; raremem.get_backend('torch'); {LOADED}").strip() == "['torch']"


def test_a_backend_by_array_loads_no_other_framework():
    code = f"import numpy, raremem; raremem.get_backend(numpy.zeros(1)); {LOADED}"
    assert python("-c", code).strip() == "[]"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source))
    return next(folder.glob("*.whl"))


def test_wheel_holds_raremem_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"raremem"}
    assert "raremem/py.typed" in names
    files = [path for room in ROOMS for kind in ("*.py", "*.html") for path in (ROOT / room).rglob(kind)]
    inside = {
        Path("raremem") / path.relative_to(ROOT / "core" if path.is_relative_to(ROOT / "core") else ROOT) for path in files
    }
    assert {path.as_posix() for path in inside} <= set(names)


def test_wheel_imports(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import raremem, raremem.reference.oracle as o; print(raremem.__file__, o.backend.name)"
    where, name = python("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}).split()
    assert where.startswith(str(tmp_path))
    assert name == "reference"


def test_the_kit_runs_from_the_wheel_on_a_backend_of_ones_own(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "mine.py").write_text("from raremem.adapters.numpy import backend\nimport raremem\nprint(raremem.__file__)\n")
    kit = ["-m", "pytest", "-s", "-p", "no:cacheprovider", "--pyargs", "raremem.reference.conformance"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]}
    said = python(*kit, "--raremem-backend", "mine:backend", "--raremem-examples", "2", cwd=tmp_path, env=environment)
    assert f"{tmp_path}/raremem/__init__.py" in said
    assert "mine:backend-eager" in said
    assert "0 are broken" in said


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory):
    """A source distribution, made from a copy and unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    for room in (*ROOMS, "tests", "docs"):
        shutil.copytree(ROOT / room, folder / "source" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for path in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(path, folder / "source")
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(folder / "source"))
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("raremem-*/"))


def test_the_source_distribution_holds_what_its_tests_need(source_distribution):
    def files(folder):
        return {str(path.relative_to(folder)) for room in (*ROOMS, "tests", "docs") for path in (folder / room).rglob("*.*")}

    assert files(source_distribution) == {name for name in files(ROOT) if "__pycache__" not in name}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt", "pyproject.toml"} <= {
        path.name for path in source_distribution.iterdir()
    }


def test_the_source_distributions_tests_run(source_distribution, tmp_path):
    """All of them are collected, with its own raremem; those that read a file of its own are run."""
    package = tmp_path / "raremem"
    package.mkdir()
    for path in (*(source_distribution / "core").iterdir(), *(source_distribution / room for room in ROOMS[1:])):
        (package / path.name).symlink_to(path)
    there = {"cwd": source_distribution, "env": {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}}
    assert str(tmp_path) in python("-c", "import raremem; print(raremem.__file__)", **there)
    pytest_there = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    collected = python(*pytest_there, "--collect-only", "tests", **there)
    files = {line.partition("::")[0].removeprefix("tests/") for line in collected.splitlines()}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} <= files
    chosen = ["tests/test_checkpoint.py", "tests/test_docs.py", "-k", "old_schema or its_blocks or their_blocks"]
    assert "5 passed" in python(*pytest_there, *chosen, **there)


def test_what_pages_show_and_link_to_is_in_the_source_distribution(source_distribution):
    link = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
    pages = [source_distribution / "README.md", *(source_distribution / "docs").glob("*.md")]
    links = [(page, found) for page in pages for found in link.findall(page.read_text().replace("\n", ""))]
    assert "docs/demo.svg" in [found for _, found in links]
    for page, found in links:
        assert (page.parent / found).is_file(), f"{page.name}: {found}"
