"""The pytest plugin: options for backends, modes and expected failures, and the report.

It does nothing in a session that runs no law.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from raremem.backend import Backend
from raremem.files import replace_file
from raremem.registry import choices
from raremem.version import __version__

MODES = ("eager", "compiled", "index", "sharded")
CAPABILITIES = ("gradients", "vmap")
SLOWEST = 5
LAW = "raremem law"
"""The name under which the report of a test has the result of its law."""


@dataclass(frozen=True)
class Mode:
    """A backend in one of its modes, and the name that the user gave."""

    called: str
    backend: Backend

    def __str__(self) -> str:
        return f"{self.called}-{self.backend.mode}"


@dataclass(eq=False)
class Results:
    """The results so far, by mode and law."""

    called: list[str]
    expected: dict[str, str]
    outcomes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0
    """Seconds for each law in each mode when fuzzing."""

    @cached_property
    def modes(self) -> list[Mode]:
        """The modes of every backend that was named. Frameworks are imported here."""
        return [Mode(called, backend) for called in self.called for backend in _modes(called)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the result of a law, of this process or of another (pytest-xdist)."""
        for name, noted in report.user_properties:
            if name == LAW and isinstance(noted, (tuple, list)):
                mode, law, found = noted
                self.outcomes.setdefault(mode, {})[law] = found

    def problems(self) -> Iterator[str]:
        """What fails the run beside broken laws."""
        for mode in self.modes:
            if not any(law["outcome"] == "passed" for law in self.outcomes.get(str(mode), {}).values()):
                yield f"no law has passed on {mode}"
        known = {f"{law}[{mode}]": found["outcome"] for mode, laws in self.outcomes.items() for law, found in laws.items()}
        for law in self.expected:
            if known.get(law) != "failed as expected":
                instead = f"it {known[law]}" if law in known else "there is no such law and mode"
                yield f"{law} is expected to fail, but {instead}"

    def count(self, mode: Mode, outcome: str) -> int:
        """The number of laws with that outcome."""
        return sum(law["outcome"] == outcome for law in self.outcomes.get(str(mode), {}).values())


RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of which begin with --raremem."""
    group = parser.getgroup("raremem", "raremem: laws that a backend of a memory must hold")
    group.addoption(
        "--raremem-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="numpy, torch, jax, or package.module:attribute of a Backend or a dict of them; may be repeated",
    )
    group.addoption(
        "--raremem-examples", type=int, metavar="N", help="cases for each law; default: 30, and 20 on a compiled backend or JAX"
    )
    group.addoption(
        "--raremem-expected-failures",
        type=Path,
        metavar="FILE",
        help="a line 'law[backend-mode]  # reason' for each law that is known to fail; one that passes is then an error",
    )
    group.addoption("--raremem-fuzz", type=float, default=0.0, metavar="MINUTES", help="search on for so long, with new cases")
    group.addoption("--raremem-report", type=Path, metavar="FILE", help="write what came out as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Make the results, and read the expected failures."""
    config.stash[RESULTS] = Results(config.option.raremem_backend, _expected(config.option.raremem_expected_failures))
    config.pluginmanager.register(config.stash[RESULTS])


def _modes(called: str) -> list[Backend]:
    """The backends of that name, one for each mode."""
    by_mode = {backend.mode: backend for backend in choices(called).values()}
    return [by_mode[mode] for mode in MODES if mode in by_mode]


def _expected(path: Path | None) -> dict[str, str]:
    """The laws and modes that are expected to fail, with reasons."""
    if path is None:
        return {}
    expected = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{path} cannot be read ({error}); expected lines 'law[backend-mode]  # reason'.") from error
    for line in text.split("\n"):
        law, _, reason = (part.strip() for part in line.partition("#"))
        if law and not reason:
            raise pytest.UsageError(f"{path}: {law!r} has no reason; expected 'law[backend-mode]  # reason'.")
        if law:
            expected[law] = reason
    return expected


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a law in every mode."""
    if "raremem_mode" in metafunc.fixturenames:
        modes = metafunc.config.stash[RESULTS].modes
        if not modes:
            raise pytest.UsageError("no backend was named; say --raremem-backend numpy, or package.module:attribute.")
        metafunc.parametrize("raremem_mode", modes, ids=str, scope="session")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Divide the time for fuzzing among the laws."""
    laws = sum(map(_is_law, session.items))
    session.config.stash[RESULTS].seconds = 60 * session.config.option.raremem_fuzz / max(1, laws)


def _is_law(item: pytest.Item) -> bool:
    return {"law", "raremem_mode"} <= set(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Record the result of a law; an expected failure does not fail."""
    report: Any = yield
    if not _is_law(item) or report.when != "call":
        return report
    law, mode = item.callspec.params["law"], str(item.callspec.params["raremem_mode"])  # type: ignore[attr-defined]
    expected = item.config.stash[RESULTS].expected.get(f"{law.name}[{mode}]")
    found = {"rule": law.rule, "outcome": report.outcome, "seconds": round(report.duration, 3), "examples": 0}
    found |= dict(report.user_properties)
    if report.skipped:
        found["outcome"] = str(call.excinfo.value) if call.excinfo else "skipped"
    elif report.failed and expected:
        found["outcome"], found["reason"] = "failed as expected", expected
        report.outcome, report.wasxfail = "skipped", expected
    report.user_properties.append((LAW, (mode, law.name, found)))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report; fail if no law passed in a mode, or an expected failure did not come."""
    results = session.config.stash[RESULTS]
    if hasattr(session.config, "workerinput") or not results.outcomes:
        return
    if session.config.option.raremem_report:
        content = {"raremem": __version__, "modes": results.outcomes, "problems": list(results.problems())}
        replace_file(session.config.option.raremem_report, (json.dumps(content, indent=1) + "\n").encode())
    if _is_whole(session.config) and any(results.problems()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_whole(config: pytest.Config) -> bool:
    """Whether all laws ran: only then can the report say that something was left out."""
    narrowed = config.option.keyword or any("::" in argument for argument in config.args)
    return bool(config.stash[RESULTS].outcomes) and not narrowed


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the report."""
    results = config.stash[RESULTS]
    if not _is_whole(config):
        return
    terminalreporter.section("raremem: laws")
    for mode in results.modes:
        for line in _lines(results, mode):
            terminalreporter.line(line)
    for called in results.called:
        absent = set(MODES) - {mode.backend.mode for mode in results.modes if mode.called == called}
        if absent:
            terminalreporter.line(f"{called}: no mode {', '.join(name for name in MODES if name in absent)}")
    taken = [(law["seconds"], f"{name}[{mode}]") for mode, laws in results.outcomes.items() for name, law in laws.items()]
    slowest = sorted(taken, reverse=True)[:SLOWEST]
    terminalreporter.line("slowest: " + ", ".join(f"{name} {seconds:.1f} s" for seconds, name in slowest))
    for problem in results.problems():
        terminalreporter.line(f"ERROR: {problem}; the run has failed", red=True)


def _lines(results: Results, mode: Mode) -> Iterator[str]:
    """The lines of the report on a mode."""
    laws = results.outcomes.get(str(mode), {})
    parts = [f"{results.count(mode, 'passed')} laws hold", f"{results.count(mode, 'failed')} are broken"]
    if results.expected:
        parts[-1] += f", {results.count(mode, 'failed as expected')} as expected"
    parts.append(f"{sum(law['examples'] for law in laws.values()):,} cases")
    parts.append(f"{sum(law['seconds'] for law in laws.values()):.0f} s")
    yield f"{mode!s:24} {', '.join(parts)}"
    missing = [name for name in CAPABILITIES if name not in mode.backend.capabilities]
    if missing:
        skipped = [law for law, found in laws.items() if found["outcome"].startswith("not declared")]
        yield f"{'':24} not declared, not run: {', '.join(missing)} ({', '.join(skipped)})"
