"""The message of a broken law: the law, its rule, a program that shows the failure, and the oracle's answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from raremem.backend import Backend
from raremem.reference.companion import Companion, Difference, as_code
from raremem.reference.comparison import run_query, run_update
from raremem.reference.laws.law import Law
from raremem.reference.lives import Life
from raremem.reference.oracle import backend as oracle
from raremem.reference.strategies import Case

LARGEST = 4096
"""Entries of keys that are printed, at most."""
MOST_LINES = 20
"""Differences that are printed, at most."""
MOST_CALLS = 300
"""Lines of a life that are printed, at most."""


def explain(law: Law, backend: Backend, case: Case | tuple[Life, ...], error: BaseException, called: str) -> str:
    """The message for the smallest case that was found."""
    if isinstance(error, Difference):
        return _explain_life(law, backend, error.life, called, error)
    assert isinstance(case, Case)
    differences = list(_differences(backend, case))
    shown = differences[:MOST_LINES] + [f"... and {len(differences) - MOST_LINES} more"] * (len(differences) > MOST_LINES)
    held = "\n    ".join(shown) if shown else "equal: the law compares other calls than a query and an update of this case"
    return (
        f"{called} ({backend.mode}) breaks the law {law.name}, rule {law.rule}:\n    {(law.check.__doc__ or '').strip()}\n\n"
        f"Paste this into Python:\n\n{program(backend, case, called)}\n"
        f"What the oracle holds after it, and what the backend does:\n    {held}\n\n"
        f"What the law said: {type(error).__name__}: {error}"
    )


def _explain_life(law: Law, backend: Backend, life: Life, called: str, error: BaseException) -> str:
    """The message for a life: the calls up to the one after which backend and oracle differ."""
    companion = Companion(backend, life, recording=True)
    again = "nowhere, when the same calls are made once more"
    try:
        companion.live()
    except Difference as difference:
        again = str(difference)
    return (
        f"{called} ({backend.mode}) breaks the law {law.name}, rule {law.rule}:\n    {(law.check.__doc__ or '').strip()}\n\n"
        f"Paste this into Python:\n\n{_program_of_life(backend, life, called, companion.lines)}\n"
        f"Backend and oracle differ {again}\n\n"
        f"What the law said: {error}"
    )


def _program_of_life(backend: Backend, life: Life, called: str, calls: list[str]) -> str:
    """The calls as a program; of too many calls, a program that draws them again."""
    lines = [
        "import numpy as np",
        "import raremem",
        f"config = raremem.{life.config!r}",
        f"backend = raremem.get_backend({called!r}, compiled={backend.compiled})",
    ]
    if any("lay_out(" in line for line in calls):
        lines.insert(2, "from raremem.reference.lives import lay_out")
    if len(calls) <= MOST_CALLS:
        lines += [*calls, "print(backend.to_numpy(state))"]
    else:
        lines = [
            "import raremem",
            "from raremem import MemoryConfig",
            "from raremem.reference.companion import Companion",
            "from raremem.reference.lives import Life, Step",
            lines[-1],
            f"Companion(backend, {life!r}).live()",
        ]
    return "".join(f"    {line}\n" for line in lines)


def program(backend: Backend, case: Case, called: str) -> str:
    """The case as a program."""
    if case.state["keys"].size > LARGEST:
        return f"    (a memory of {case.state['keys'].shape} is too large to print; the law's own code makes it)\n"
    state = ", ".join(f'"{name}": {as_code(content)}' for name, content in case.state.items())
    lines = [
        "import numpy as np",
        "import raremem",
        f"config = raremem.{case.config!r}",
        f"backend = raremem.get_backend({called!r}, compiled={backend.compiled})",
        f"state = backend.from_numpy(config, {{{state}}})",
        f"queries = {as_code(case.queries)}",
        f"targets, mask = {as_code(case.targets)}, {as_code(case.mask)}",
        "print(backend.query(config, state, queries, targets, mask))",
        "state, report = backend.update(config, state, queries, targets, mask)",
        "print(report, backend.to_numpy(state))",
    ]
    return "".join(f"    {line}\n" for line in lines)


def _differences(backend: Backend, case: Case) -> Iterator[str]:
    """Where the query and the update of a case differ from the oracle's, by row and then by slot."""
    try:
        expected, got = _outcome(oracle, case), _outcome(backend, case)
    except Exception as error:
        yield f"the program raises {type(error).__name__}: {error}"
        return
    for part, place in (("query", "row"), ("report", "row"), ("memory", "slot")):
        for name, right in expected[part].items():
            answer = got[part].get(name)
            if answer is None or answer.shape != right.shape:
                yield f"{part}, {name}: oracle {right.shape}, backend {None if answer is None else answer.shape}"
            elif right.ndim == 0:
                if answer != right:
                    yield f"{part}, {name}: oracle {right}, backend {answer}"
            else:
                unequal = ~np.isclose(answer, right, rtol=1e-5, atol=1e-6).reshape(len(right), -1).all(axis=1)
                for row in np.flatnonzero(unequal):
                    yield f"{place} {row}, {name}: oracle {right[row]}, backend {answer[row]}"


def _outcome(backend: Backend, case: Case) -> dict[str, dict[str, np.ndarray]]:
    memory, report = run_update(backend, case)
    parts: dict[str, dict[str, Any]] = {
        "query": run_query(backend, case)._asdict(),
        "report": report._asdict(),
        "memory": memory,
    }
    return {
        part: {name: np.asarray(content) for name, content in contents.items() if content is not None}
        for part, contents in parts.items()
    }
