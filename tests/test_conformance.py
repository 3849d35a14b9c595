"""The conformance kit as someone else uses it: on a backend of their own, in a folder of their own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import raremem
from raremem.adapters.numpy import NumpyBackend
from raremem.command.cli import main

FAULTY = """
    from raremem.adapters.numpy import NumpyPrimitives
    from raremem.backend import ArrayBackend

    class Faulty(NumpyPrimitives):
        name = "faulty"

        def write(self, state, slots, content):
            return super().write(state, slots, content._replace(values=content.values * 0))

    backend = ArrayBackend(Faulty())
"""
SOUND = """
    from raremem.adapters.numpy import NumpyPrimitives
    from raremem.backend import ArrayBackend

    backend = ArrayBackend(NumpyPrimitives())
"""

FORGETFUL = """
    from raremem.adapters.numpy import NumpyPrimitives
    from raremem.backend import ArrayBackend

    class Forgetful(ArrayBackend):
        def update(self, config, state, *batch, **options):
            third = int(state.step) == 2
            after, report = super().update(config, self.copy(state) if third else state, *batch, **options)
            return (state if third else after), report

    backend = Forgetful(NumpyPrimitives())
"""


@pytest.fixture
def mine(tmp_path):
    """Run pytest with the kit on a module of one's own, with nothing of this repository in sight."""

    def run(source, *options):
        (tmp_path / "mine.py").write_text(textwrap.dedent(source))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "raremem.reference.conformance"]
        command += ["--raremem-backend", "mine:backend", "--raremem-examples", "4", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path))

    return run


def environment(folder):
    return {**os.environ, "PYTHONPATH": str(folder)}


def program_in(output):
    lines = [line.removeprefix("E").strip() for line in output.splitlines()]
    first = lines.index("import numpy as np")
    return "\n".join(lines[first : lines.index("", first)])


def test_a_sound_backend_passes_and_says_what_it_does_not_declare(mine, tmp_path):
    result = mine(SOUND, "--raremem-report", "report.json")
    assert result.returncode == 0, result.stdout
    assert "mine:backend-eager" in result.stdout
    assert "0 are broken" in result.stdout
    assert "not declared, not run: gradients, vmap" in result.stdout
    assert "mine:backend: no mode compiled, index, sharded" in result.stdout
    assert "slowest: " in result.stdout
    laws = json.loads((tmp_path / "report.json").read_text())["modes"]["mine:backend-eager"]
    assert laws["masked_rows_are_not_there"]["outcome"] == "passed"
    assert laws["masked_rows_are_not_there"]["examples"] >= 4
    assert laws["gradient_agrees"]["outcome"] == "not declared: gradients"


def test_a_broken_law_is_told_with_a_program_that_shows_it(mine, tmp_path):
    result = mine(FAULTY, "--raremem-examples", "10", "-k", "update_agrees")
    assert result.returncode == 1
    assert "mine:backend (eager) breaks the law" in result.stdout
    assert "slot 0, values: oracle" in result.stdout
    program = program_in(result.stdout)
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path)
    )
    assert shown.returncode == 0, shown.stderr
    assert "UpdateReport(" in shown.stdout


def test_a_broken_law_over_time_is_told_with_every_call_that_it_takes(mine, tmp_path):
    result = mine(FORGETFUL, "--raremem-examples", "30", "-k", "a_memory_lives and not any and not long")
    assert result.returncode == 1
    assert "Backend and oracle differ at step " in result.stdout
    program = program_in(result.stdout)
    assert program.count("backend.update(") == 3
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path)
    )
    assert shown.returncode == 0, shown.stderr
    assert "'step': 2" in shown.stdout


def test_expected_failures_have_reasons_and_must_fail(mine, tmp_path):
    listed = tmp_path / "expected.txt"
    listed.write_text("no_such_law[mine:backend-eager]  # none\nquery_agrees[mine:backend-eager]  # it passes\n")
    few = "--raremem-examples", "1"
    result = mine(SOUND, *few, "--raremem-expected-failures", "expected.txt")
    assert result.returncode == 1
    assert "no_such_law[mine:backend-eager] is expected to fail, but there is no such law and mode" in result.stdout
    assert "query_agrees[mine:backend-eager] is expected to fail, but it passed" in result.stdout
    listed.write_text("anything[mine:backend-eager]\n")
    assert "has no reason" in mine(SOUND, "--raremem-expected-failures", "expected.txt").stderr
    every = mine(FAULTY, *few, "--raremem-report", "report.json")
    assert every.returncode == 1
    laws = json.loads((tmp_path / "report.json").read_text())["modes"]["mine:backend-eager"]
    broken = [law for law, found in laws.items() if found["outcome"] == "failed"]
    listed.write_text("".join(f"{law}[mine:backend-eager]  # values are lost\n" for law in broken))
    result = mine(FAULTY, *few, "--raremem-expected-failures", "expected.txt")
    assert result.returncode == 0, result.stdout
    assert f"0 are broken, {len(broken)} as expected" in result.stdout


def test_a_backend_on_which_nothing_ran_fails_the_run(mine):
    nothing = SOUND + "    backend.query = backend.update = backend.from_numpy = None\n"
    result = mine(nothing)
    assert result.returncode == 1
    assert "ERROR: no law has passed on mine:backend-eager; the run has failed" in result.stdout


def test_the_backend_of_the_page_that_makes_one_holds_every_law(mine):
    page = (Path(__file__).parents[1] / "docs" / "write-a-backend.md").read_text()
    source = page.partition("```python\n")[2].partition("```")[0]
    lines = len([line for line in source.splitlines() if line.strip()])
    assert lines <= 70
    assert f"It takes {lines} lines of code" in page
    result = mine(source)
    assert result.returncode == 0, result.stdout
    assert "mine:backend-eager" in result.stdout
    assert "not declared, not run: vmap" in result.stdout


def test_without_a_backend_it_says_which_to_name(tmp_path):
    command = [sys.executable, "-m", "pytest", "--pyargs", "raremem.reference.conformance"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert "no backend was named; say --raremem-backend numpy" in result.stdout + result.stderr


def test_the_short_form(tmp_path, capfd):
    assert main(["conformance", "--backend", "numpy", "--examples", "2", "--report", str(tmp_path / "report.json")]) == 0
    assert "numpy-eager" in capfd.readouterr().out
    assert (tmp_path / "report.json").is_file()
    assert main(["conformance", "--backend", "nupmy"]) == 1
    assert "no backend 'nupmy'" in capfd.readouterr().err


def test_modes_of_ones_own():
    assert raremem.get_backend("raremem.adapters.numpy:backend", compiled=False).mode == "eager"
    with pytest.raises(raremem.UnknownBackendError, match="has no compiled mode"):
        raremem.get_backend("raremem.adapters.numpy:backend", compiled=True)
    with pytest.raises(raremem.UnknownBackendError, match="'numpy' has no compiler; use it eager"):
        NumpyBackend(compiled=True)
