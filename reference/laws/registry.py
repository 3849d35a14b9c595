"""The list of all laws, how one is tried on a backend, and the kinds of cases that laws ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from raremem.backend import Backend
from raremem.reference.laws.explain import explain
from raremem.reference.laws.law import Check, Law
from raremem.reference.lives import Life
from raremem.reference.strategies import FEW_SIZES, MANY_SIZES, Case, Size, cases

FOUND = ".hypothesis/raremem"
"""Where fuzzing keeps the cases that it has found."""

LAWS: dict[str, Law] = {}


def law(
    rule: str, strategy: Callable[[tuple[Size, ...]], st.SearchStrategy[Any]] = cases, **traits: Any
) -> Callable[[Check], Check]:
    """Enter a function among the laws, under its own name."""

    def enter(check: Check) -> Check:
        LAWS[check.__name__] = Law(check.__name__, rule, strategy, check, **traits)
        return check

    return enter


def run(
    law: Law, backend: Backend, examples: int = 50, shrink: bool = True, called: str | None = None, fuzz: bool = False
) -> int:
    """Try a law on a backend with this many cases (a tenth if it is costly), the same ones every time.

    Args:
        law: which.
        backend: on what.
        examples: how many cases.
        shrink: look for the smallest case, and explain it.
        called: what the user calls the backend.
        fuzz: other cases every time, and first those that have failed before, as Hypothesis's database has them.

    Returns:
        How many cases were tried.

    Raises:
        AssertionError: the law does not hold. It says so for the smallest case that was found; see `explain`.
    """
    tried = 0
    broken: list[tuple[Case | tuple[Life, ...], Exception]] = []
    phases = [Phase.generate] + [Phase.shrink] * (shrink and not law.costly) + [Phase.reuse] * fuzz
    sizes = FEW_SIZES if backend.compiled or backend.name == "jax" else MANY_SIZES

    @settings(
        max_examples=max(1, examples // 10) if law.costly else examples,
        phases=phases,
        deadline=None,
        database=DirectoryBasedExampleDatabase(f"{FOUND}/{law.name}") if fuzz else None,
        derandomize=not fuzz,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(law.strategy(sizes))
    def check(case: Case | tuple[Life, ...]) -> None:
        nonlocal tried
        tried += 1
        try:
            law.check(backend, case)
        except Exception as error:
            broken[:] = [(case, error)]
            raise

    try:
        check()
    except Exception:
        if not broken:
            raise
        case, error = broken[0]
        raise AssertionError(explain(law, backend, case, error, called or backend.name) if shrink else law.name) from error
    return tried


def general(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Arbitrary f32 rows."""
    return cases(sizes, exact=False)


def full(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Memories with no empty slot."""
    return cases(sizes, full=True, masked=False)


def empty(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Memories that have seen nothing."""
    return cases(sizes, full=False, masked=False)


def crowded(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """More rows than slots."""
    return cases(tuple(size for size in sizes if size.batch > size.config.slots), masked=False)


def one_slot(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """A memory of a single slot."""
    return cases(tuple(size for size in sizes if size.config.slots == 1))


def many_neighbors(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """More neighbors asked for than there are slots."""
    return cases(tuple(size for size in sizes if size.config.neighbors > size.config.slots))
