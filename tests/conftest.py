"""At the end of a whole run of the laws: what ran on what, and a failure if some backend was never tried."""

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

_spec = importlib.util.spec_from_file_location("modes", Path(__file__).with_name("modes.py"))
modes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(modes)

PASSED = pytest.StashKey[Counter]()
WHOLE = pytest.StashKey[bool]()


@pytest.fixture(params=modes.MODES, scope="session")
def backend(request):
    """A backend in a mode; the laws are run on each."""
    return modes.backend_of(request.param)


def pytest_configure(config):
    config.stash[PASSED] = Counter()


def pytest_collection_finish(session):
    """The laws are whole if their file was collected and nothing was deselected."""
    laws = any("test_laws.py" in item.nodeid for item in session.items)
    narrowed = session.config.option.keyword or any("::" in argument for argument in session.config.args)
    session.config.stash[WHOLE] = laws and not narrowed and not session.config.option.collectonly


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    mode = getattr(item, "callspec", None) and item.callspec.params.get("backend")
    if "test_laws.py" in item.nodeid and mode and report.when == "call" and report.passed:
        item.config.stash[PASSED][mode] += 1


def pytest_sessionfinish(session):
    if session.config.stash.get(WHOLE, False) and modes.unexercised(session.config.stash[PASSED]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if not config.stash.get(WHOLE, False):
        return
    terminalreporter.section("laws")
    for mode in modes.MODES:
        terminalreporter.line(f"{mode:16} {config.stash[PASSED][mode]} laws passed")
    for mode in modes.unexercised(config.stash[PASSED]):
        terminalreporter.line(f"ERROR: no law ran on {mode}; the run has failed", red=True)
