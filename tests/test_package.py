"""What is imported, what is installed, and what the wheel holds."""

import os
import shutil
import subprocess
import sys
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
    modules = {str(path.relative_to(ROOT)) for room in ROOMS[1:] for path in (ROOT / room).rglob("*.py")}
    assert {f"raremem/{name}" for name in modules} <= set(names)


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


def test_core_imports_numpy_and_files_only():
    """The room that all others stand on knows no framework."""
    for path in (ROOT / "core").glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "from ")) and not line.startswith("from ."):
                root = line.split()[1].partition(".")[0]
                assert root in {*sys.stdlib_module_names, "numpy", "safetensors"}, f"{path.name}: {line}"
